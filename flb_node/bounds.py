# SPDX-License-Identifier: Apache-2.0
"""Numbers of a run spec that no training bears, refused by name before a library meets them.

A spec may come from another program than `flb chain deploy`, which refuses the same in config.yaml.
"""

from flb.config import AT_MOST
from flb.errors import Refused
from flb.spec import RunSpec

REMEDY = "ask the operator for a run with another value"


def check(spec: RunSpec) -> None:
    """Raise Refused for the first number beyond its bounds: `flb.config.AT_MOST`, a rank and an alpha of at least 1, and
    a dropout from 0 to below 1."""
    for key, most in AT_MOST.items():
        section, _, name = key.removeprefix("run.").rpartition(".")
        value = getattr(getattr(spec, section), name)
        if not value <= most:
            raise Refused(f"{key} of the run is {value:g}, and training bears at most {most:,.0f}", REMEDY)
    for name in ("r", "alpha"):
        if (value := getattr(spec.lora, name)) < 1:
            raise Refused(f"lora.{name} of the run is {value}, and training needs at least 1", REMEDY)
    if not 0 <= spec.lora.dropout < 1:
        raise Refused(f"lora.dropout of the run is {spec.lora.dropout:g}, and a share is from 0 to below 1", REMEDY)
