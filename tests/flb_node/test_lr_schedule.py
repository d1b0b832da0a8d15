# SPDX-License-Identifier: Apache-2.0
"""The learning rate over the whole run: one curve, however the run is cut into steps."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.spec import LR_SCHEDULES, TrainingSpec
from flb_node.lr_schedule import learning_rate, planned_steps

pytestmark = pytest.mark.unit

TRAINING = TrainingSpec(local_steps=5, batch_size=4, learning_rate=1e-3, max_length=96, seed=0)


def curve(training: TrainingSpec, steps: int) -> list[float]:
    count = training.local_steps
    return [learning_rate(training, steps, step, local, count) for step in range(steps) for local in range(count)]


def test_learning_rate__constant__is_the_peak_everywhere() -> None:
    assert set(curve(TRAINING, 4)) == {1e-3}


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_learning_rate__same_run_cut_otherwise__same_curve(name: str) -> None:
    training = replace(TRAINING, lr_schedule=name, warmup_steps=3)
    assert curve(training, 4) == curve(replace(training, local_steps=20), 1)


def test_learning_rate__linear__falls_evenly_to_the_end_of_the_run() -> None:
    rates = curve(replace(TRAINING, lr_schedule="linear"), 2)
    assert rates == pytest.approx([1e-3 * (10 - place) / 10 for place in range(10)])


def test_learning_rate__cosine__half_way_is_half_the_peak() -> None:
    rates = curve(replace(TRAINING, lr_schedule="cosine"), 2)
    assert rates[0] == 1e-3 and rates[5] == pytest.approx(5e-4) and 0 < rates[9] < 3e-5


def test_learning_rate__warmup__rises_from_above_zero_to_the_peak() -> None:
    rates = curve(replace(TRAINING, warmup_steps=4), 2)
    assert rates[:5] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3]) and set(rates[4:]) == {1e-3}


def test_learning_rate__node_that_plans_fewer__starts_and_ends_with_the_others() -> None:
    training = replace(TRAINING, lr_schedule="linear", local_steps=10)
    assert learning_rate(training, 3, 1, 0, 4) == learning_rate(training, 3, 1, 0, 10)
    assert learning_rate(training, 3, 1, 2, 4) == learning_rate(training, 3, 1, 5, 10)


@given(
    st.sampled_from(LR_SCHEDULES), st.integers(1, 50), st.integers(1, 50), st.integers(0, 60), st.integers(1, 60),
    st.data(),
)  # fmt: skip
def test_learning_rate__anywhere__is_above_zero_and_at_most_the_peak(
    name: str, steps: int, local_steps: int, warmup: int, planned: int, data: st.DataObject
) -> None:
    training = replace(
        TRAINING, lr_schedule=name, local_steps=local_steps, warmup_steps=min(warmup, steps * local_steps)
    )
    step, local = data.draw(st.integers(0, steps - 1)), data.draw(st.integers(0, planned - 1))
    assert 0 < learning_rate(training, steps, step, local, planned) <= training.learning_rate


@pytest.mark.parametrize(
    ("epochs", "examples", "expected"), [(0, 3, 5), (1, 8, 2), (1, 9, 3), (2, 9, 5), (1, 1, 1), (9, 400, 5)]
)
def test_planned_steps__epochs__count_passes_up_to_local_steps(epochs: int, examples: int, expected: int) -> None:
    assert planned_steps(replace(TRAINING, local_epochs=epochs), examples) == expected
