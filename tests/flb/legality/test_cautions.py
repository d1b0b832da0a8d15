# SPDX-License-Identifier: Apache-2.0
"""An adaptive server optimizer at the rate of FedAvg is warned of; what is meant so is not."""

from dataclasses import replace

import pytest

from flb import legality
from flb.legality.cautions import cautions, in_words
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def warned(name: str, rate: float, tau: float = 0.0) -> list[str]:
    """The warnings for a server optimizer, whose spec is legal."""
    spec = small_spec()
    spec = replace(spec, server_optimizer=replace(spec.server_optimizer, name=name, learning_rate=rate, tau=tau))
    assert legality.reasons(spec) == ()
    return [in_words(caution) for caution in cautions(spec)]


@pytest.mark.parametrize("name", ["adagrad", "adam", "yogi"])
def test_cautions__adaptive_at_the_default_rate__says_what_it_does_and_what_to_set(name: str) -> None:
    (text,) = warned(name, 1.0)
    assert text == (
        f"warning: run.server_optimizer.learning_rate is 1, and {name} moves every weight of the adapter by about so much in "
        "each round, whatever the nodes trained: set run.server_optimizer.learning_rate to 0.001"
    )


@pytest.mark.parametrize(
    ("name", "rate", "tau"),
    [("sgd", 1.0, 0.0), ("momentum", 1.0, 0.0), ("nesterov", 0.7, 0.0), ("adam", 1e-3, 0.0), ("adam", 1e-2, 0.0),
     ("yogi", 1.0, 1.0)],
)  # fmt: skip
def test_cautions__rate_that_fits__none(name: str, rate: float, tau: float) -> None:
    assert warned(name, rate, tau) == []


def test_cautions__rank_above_the_smallest_side__says_the_most_that_learns() -> None:
    spec = small_spec()
    wide = replace(spec, lora=replace(spec.lora, r=9), tensors=tuple(
        replace(tensor, shape=(9, 40_000) if tensor.name.endswith("lora_A.weight") else (8, 9)) for tensor in spec.tensors
    ))  # fmt: skip
    (caution,) = cautions(wide)
    assert (caution.code, caution.repairs[0].value) == ("idle_ranks", 8) and cautions(spec) == ()
