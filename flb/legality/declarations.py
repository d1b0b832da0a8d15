# SPDX-License-Identifier: Apache-2.0
"""Which algorithms this version has, under the words of the run spec, each with what it declares of itself.

An algorithm is one file that is named like its word: `trimmed_mean` is `flb.aggregation.trimmed_mean`. So a word whose
file is not there is not in this version, and nothing else has to be told when the file comes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from flb.capabilities import (
    CodecCapabilities,
    MixingCapabilities,
    ModeCapabilities,
    OptimizerCapabilities,
    PrivacyCapabilities,
    RuleCapabilities,
)
from flb.spec_sections import AGGREGATION_RULES, MIXINGS, PRIVACY_MECHANISMS, SERVER_OPTIMIZERS
from flb.types import Codec, LoraMode

NONE = "none"
"""The word for no mixing and no privacy mechanism."""
PRIVACIES = tuple(word for word in PRIVACY_MECHANISMS if word != NONE)
"""The words for the others."""


@dataclass(frozen=True, slots=True)
class Declarations:
    """By the words of the run spec, in the order in which the spec lists them; `residual` says whether a residual can be
    kept."""

    modes: Mapping[str, ModeCapabilities]
    rules: Mapping[str, RuleCapabilities]
    mixings: Mapping[str, MixingCapabilities]
    optimizers: Mapping[str, OptimizerCapabilities]
    codecs: Mapping[str, CodecCapabilities]
    privacies: Mapping[str, PrivacyCapabilities]
    residual: bool


def declared(package: str, words: Iterable[str]) -> dict[str, Any]:
    """The constant `CAPABILITIES` of each file of `package` that is named like one of `words`; a file without it is none of
    an algorithm that may be chosen."""
    found = {}
    for word in words:
        name = f"{package}.{word}"
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, package):  # the file is there, and misses something itself
                raise
            continue
        if (capabilities := getattr(module, "CAPABILITIES", None)) is not None:
            found[word] = capabilities
    return found


DECLARED = Declarations(
    modes=declared("flb.lora", (mode.value for mode in LoraMode)),
    rules=declared("flb.aggregation", AGGREGATION_RULES),
    mixings={NONE: MixingCapabilities(needs_distances=False, factor=0)}
    | declared("flb.aggregation", (word for word in MIXINGS if word != NONE)),
    optimizers=declared("flb.server_optimizer", SERVER_OPTIMIZERS),
    codecs=declared("flb.codec", (codec.name.lower() for codec in Codec)),
    privacies={NONE: PrivacyCapabilities()} | declared("flb.privacy", PRIVACIES),
    residual=find_spec("flb.lora.residual") is not None,
)
"""Everything that this version has."""
