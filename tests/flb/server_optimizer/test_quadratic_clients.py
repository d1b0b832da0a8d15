# SPDX-License-Identifier: Apache-2.0
"""Whole runs on clients whose optimum is known: fᵢ(x) = aᵢ/2·(x - cᵢ)², K local steps of gradient descent, through the
real delta, ring, mean and step.

With wᵢ = 1 - (1 - η·aᵢ)^K a client's update is wᵢ·(cᵢ - x), so every server optimizer rests where Σ wᵢ·(cᵢ - x) = 0, at
Σ wᵢ·cᵢ / Σ wᵢ. That is not the optimum Σ aᵢ·cᵢ / Σ aᵢ: the price of local steps."""

import numpy as np
import pytest

from flb.aggregation.mean import weighted_sum
from flb.delta import add_step, difference, mean, to_ring
from flb.server_optimizer import OPTIMIZERS
from flb.server_optimizer.constants import Constants
from tests.optimizing import started

pytestmark = pytest.mark.unit

SHARP, CENTRES = (1.0, 3.0, 0.5), (0.0, 2.0, -1.0)
RATE, LOCAL, F = 0.1, 7, 32
FIXED_POINT, OPTIMUM = 0.88088372, 1.22222222


def local(adapter: np.ndarray, sharp: float, centre: float) -> np.ndarray:
    """One client's update, in float32 as nodes send it."""
    x = adapter.astype(np.float64)
    for _ in range(LOCAL):
        x = x - RATE * (sharp * (x - centre))
    return difference(x.astype(np.float32), adapter)


def run(name: str, constants: Constants, steps: int, order: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """The adapter after some steps, from 0 and from -1."""
    adapter = np.array([0.0, -1.0], dtype=np.float32)
    moments = started(name, 2, constants.tau)
    for _ in range(steps):
        updates = [local(adapter, SHARP[i], CENTRES[i]) for i in order]
        blocks = [(1, to_ring(update, F, np.empty(2, np.int64))) for update in updates]
        averaged = mean(weighted_sum(blocks, np.empty(2, np.int64)), 3, F)
        adapter = add_step(adapter, OPTIMIZERS[name].step(averaged, moments, constants))
    return adapter


@pytest.mark.parametrize(
    ("name", "constants", "steps"),
    [
        ("sgd", Constants(1.0), 60),
        ("momentum", Constants(1.0, 0.5), 80),
        ("momentum", Constants(0.1, 0.9), 300),
        ("nesterov", Constants(0.7, 0.9), 300),
        ("adagrad", Constants(1.0, tau=1.0), 300),
        ("adam", Constants(0.3, 0.9, 0.99, 1.0), 600),
        ("yogi", Constants(0.3, 0.9, 0.99, 1.0), 600),
    ],
)
def test_run__quadratic_clients__rests_at_the_closed_form(name: str, constants: Constants, steps: int) -> None:
    weights = [1 - (1 - RATE * sharp) ** LOCAL for sharp in SHARP]
    wanted = sum(w * c for w, c in zip(weights, CENTRES, strict=True)) / sum(weights)
    assert wanted == pytest.approx(FIXED_POINT, abs=5e-9)
    # a float32 adapter stands still once a step is below half a unit, 3e-8: within that over the optimizer's rate
    assert run(name, constants, steps) == pytest.approx(np.full(2, wanted), abs=3e-7)


def test_run__one_local_step__rests_at_the_true_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LOCAL", 1)
    assert run("sgd", Constants(1.0), 300) == pytest.approx(np.full(2, OPTIMUM), abs=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_run__clients_in_another_order__gives_the_same_bits(name: str) -> None:
    constants = Constants(0.3, tau=0.1)
    assert run(name, constants, 20).tobytes() == run(name, constants, 20, (2, 0, 1)).tobytes()
