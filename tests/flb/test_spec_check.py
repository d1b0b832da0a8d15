# SPDX-License-Identifier: Apache-2.0
"""The largest step that a server optimizer can make, against steps that come close to it."""

import dataclasses

import numpy as np
import pytest

from flb.errors import Refused
from flb.server_optimizer import OPTIMIZERS
from flb.server_optimizer.constants import Constants
from flb.spec import ServerOptimizerSpec, check
from flb.spec_check import reach
from tests.optimizing import steps
from tests.sim import small_spec

pytestmark = pytest.mark.unit

HOSTILE = [
    [4.0] * 300,
    [4.0, -4.0] * 50,
    [2.0**-32] * 50 + [4.0] * 5,
    [4.0] * 50 + [0.0] * 50,
    [4.0] + [0.0] * 3000 + [2.0**-32],
]


@pytest.mark.parametrize("tau", [2.0**-32, 1e-3, 10.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_reach__means_up_to_the_bound__no_step_is_larger(name: str, tau: float) -> None:
    spec = ServerOptimizerSpec(name, 0.7, tau=tau)
    limit = reach(spec, 4, 32) * (1 + 2.0**-40)  # each operation rounds
    for means in HOSTILE:
        made, _ = steps(name, [np.full(1, mean) for mean in means], Constants(0.7, 0.9, 0.99, tau))
        assert max(abs(float(step[0])) for step in made) <= limit


@pytest.mark.parametrize(
    ("optimizer", "legal"),
    [
        (ServerOptimizerSpec("sgd", 2.0**97), True),
        (ServerOptimizerSpec("momentum", 2.0**97, momentum=0.5), True),
        (ServerOptimizerSpec("momentum", 2.0**97, momentum=0.9), False),
        (ServerOptimizerSpec("nesterov", 2.0**97, momentum=0.9), False),
        (ServerOptimizerSpec("adam", 2.0**60), True),
        (ServerOptimizerSpec("yogi", 2.0**97), False),
        (ServerOptimizerSpec("adagrad", 1.0, tau=5e-324), False),
    ],
)
def test_check__step_that_the_down_codec_cannot_hold__is_refused(optimizer: ServerOptimizerSpec, legal: bool) -> None:
    spec = dataclasses.replace(small_spec(down="mxint8"), server_optimizer=optimizer)
    if legal:
        check(spec)
        return
    with pytest.raises(Refused, match="lower the learning rate"):
        check(spec)
    check(dataclasses.replace(spec, down="f32"))
