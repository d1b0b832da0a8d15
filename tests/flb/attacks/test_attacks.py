# SPDX-License-Identifier: Apache-2.0
"""Attacks: the golden vectors, and what each one is for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.attacks import ATTACKS, Seen, gauge, label_flip, named
from flb.attacks.moments import deviation, mean
from flb.errors import Refused

pytestmark = pytest.mark.unit

A, B = "layers.0.lora_A.weight", "layers.0.lora_B.weight"
X = [{A: np.float32([row])} for row in ([1, 2, 3], [4, 5, 6], [7, 8, 9])]
SEEN = Seen(base={A: np.zeros((1, 3), np.float32)}, own=X[1], honest=X)
"""`own` is the mean of the golden vectors."""


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("sign-flip", 1, [-4, -5, -6]),
        ("ipm", 2, [-8, -10, -12]),  # FOE(3)
        ("alie", 1.5, [8.5, 9.5, 10.5]),
        ("alie", 0, [4, 5, 6]),
        ("mimic", 2, [7, 8, 9]),
        ("mimic", 3, [1, 2, 3]),
        ("scale", 100, [400, 500, 600]),
    ],
)
def test_attack__golden_vector__is_what_the_papers_say(name: str, strength: float, expected: list[float]) -> None:
    sends = named(name).sends
    assert sends is not None
    sent = sends(SEEN, strength)
    assert sent[A].dtype == np.float32 and sent[A].tolist() == [expected]


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.sends is not None])
def test_attack__any__has_names_and_shapes_of_the_update_and_leaves_what_it_saw(name: str) -> None:
    base = {A: np.float32([[1, 2], [3, 4]]), B: np.zeros((3, 2), np.float32)}
    honest = [{part: np.full_like(value, number + 1) for part, value in base.items()} for number in range(3)]
    before = [value.tobytes() for update in (base, *honest) for value in update.values()]
    attack = named(name)
    assert attack.sends is not None
    sent = attack.sends(Seen(base, honest[0], honest if attack.omniscient else ()), attack.strength or 0.0)
    assert {part: (value.shape, value.dtype) for part, value in sent.items()} == {
        part: (value.shape, np.dtype(np.float32)) for part, value in base.items()
    }
    assert before == [value.tobytes() for update in (base, *honest) for value in update.values()]


def test_nan__every_tensor__holds_one() -> None:
    sends = named("nan").sends
    assert sends is not None and np.isnan(sends(SEEN, 0)[A]).sum() == 1


@given(st.integers(-8, 8), st.integers(0, 2**32 - 1))
def test_gauge__power_of_two__same_product_and_another_update(power: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    base = {A: random.standard_normal((2, 5)).astype(np.float32), B: np.zeros((4, 2), np.float32)}
    own = {name: random.standard_normal(value.shape).astype(np.float32) for name, value in base.items()}
    sent = gauge.attack(base, own, 2.0**power)
    honest, moved = ({n: base[n].astype(np.float64) + u[n] for n in base} for u in (own, sent))
    assert np.allclose(moved[B] @ moved[A], honest[B] @ honest[A], rtol=1e-4, atol=1e-3)
    assert power == 0 or not np.allclose(sent[B], own[B], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_gauge__factor_that_is_none__refused(factor: float) -> None:
    with pytest.raises(Refused, match="gauge attack has the factor"):
        gauge.attack({}, {}, factor)


def test_gauge__one_factor_alone__refused() -> None:
    with pytest.raises(Refused, match="sends both factors: set lora.mode: factors"):
        gauge.attack({A: X[0][A]}, {A: X[0][A]}, 2.0)


@given(st.lists(st.integers(), max_size=9))
def test_label_flip__answers__each_stays_once_and_moves_by_one(answers: list[int]) -> None:
    flipped = label_flip.rotated(answers)
    assert sorted(flipped) == sorted(answers)
    assert [flipped[index - 1] for index in range(len(answers))] == answers


def test_moments__one_update__has_no_deviation() -> None:
    assert mean([X[0][A]]).tolist() == [[1, 2, 3]] and not deviation([X[0][A]]).any()


def test_named__unknown__lists_all() -> None:
    with pytest.raises(Refused, match="the attack 'krum' is unknown: choose sign-flip, .*label-flip"):
        named("krum")
