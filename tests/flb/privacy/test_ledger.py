# SPDX-License-Identifier: Apache-2.0
"""The ledger adds up as the accountant does, stops at the budget, and reads what a crash leaves."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flb.errors import CorruptStore, Refused
from flb.privacy.accountant import epsilon_of_rounds, noise_multiplier_for
from flb.privacy.ledger import Charge, check_budget, composed, of_run, read, spent
from flb.types import Address, Digest, Step

pytestmark = pytest.mark.unit

RUN, OTHER = Address(b"\x01" * 20), Address(b"\x02" * 20)
DELTA = 1e-5


def charge(step: int = 1, mu: float = 0.5, run: Address = RUN) -> Charge:
    return Charge(run, Step(step), Digest(bytes(32)), step.to_bytes(16, "big"), mu)


CHARGES = st.builds(
    Charge,
    st.binary(min_size=20, max_size=20).map(Address),
    st.integers(1, 2**32 - 1).map(Step),
    st.binary(min_size=32, max_size=32).map(Digest),
    st.binary(min_size=16, max_size=16),
    st.floats(1e-6, 1e6),
)


@given(st.lists(CHARGES, max_size=5), st.binary(max_size=30).filter(lambda tail: b"\n" not in tail))
def test_read__written_lines_and_a_torn_one__are_the_charges(charges: list[Charge], tail: bytes) -> None:
    text = b"".join(item.line() for item in charges)
    assert read(text + tail) == (charges, len(text))


@given(CHARGES, st.data())
def test_read__a_line_cut_anywhere__is_left_out(item: Charge, data: st.DataObject) -> None:
    line = item.line()
    assert read(line[: data.draw(st.integers(0, len(line) - 1))]) == ([], 0)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"{}", b"\xff", b"[1", charge().line()[:-3], charge(0).line()[:-1], charge(mu=math.nan).line()[:-1],
     charge(mu=-1.0).line()[:-1], charge().line()[:-1].replace(b"0101", b"01")],
)  # fmt: skip
def test_read__damaged_line__is_named(line: bytes) -> None:
    with pytest.raises(CorruptStore, match="line 2"):
        read(charge().line() + line + b"\n" + charge(2).line())


@given(st.binary(max_size=200))
def test_read__any_bytes__is_charges_or_a_refusal(text: bytes) -> None:
    try:
        charges, whole = read(text)
    except CorruptStore:
        return
    assert b"".join(item.line() for item in charges).count(b"\n") == text[:whole].count(b"\n")


def test_spent__equal_rounds__is_what_the_accountant_says() -> None:
    charges = [charge(step, mu=0.2) for step in range(1, 11)]
    expected = epsilon_of_rounds(noise_multiplier=5.0, sampling_rate=1.0, rounds=10, delta=DELTA)
    assert spent(charges, DELTA) == pytest.approx(expected, rel=1e-8)
    assert composed([]) == 0.0 and spent([], DELTA) == 0.0


@given(st.floats(0.1, 100), st.integers(1, 60))
def test_budget__noise_made_for_so_many_rounds__pays_for_them_and_no_more(epsilon: float, rounds: int) -> None:
    mu = 1 / noise_multiplier_for(epsilon, DELTA, rounds)
    charges: list[Charge] = []
    for step in range(1, rounds + 1):
        check_budget(charges, charge(step, mu), epsilon, DELTA)
        charges.append(charge(step, mu))
    with pytest.raises(Refused, match="never given back"):
        check_budget(charges, charge(rounds + 1, mu), epsilon, DELTA)


def test_budget__other_run__has_its_own() -> None:
    charges = [charge(step, 1.0, OTHER) for step in range(1, 50)]
    check_budget(charges, charge(1, 1.0), 5.0, DELTA)
    assert of_run(charges, RUN) == [] and len(of_run(charges, OTHER)) == 49


def test_budget__none__stops_nothing() -> None:
    check_budget([charge(step, 1000.0) for step in range(1, 50)], charge(50, 1000.0), 0.0, DELTA)


class Spending(RuleBasedStateMachine):
    """Charges of any size in any order: what was spent only grows, and never passes the budget."""

    def __init__(self) -> None:
        super().__init__()
        self.charges: list[Charge] = []
        self.last = 0.0

    @rule(mu=st.floats(0.01, 2.0))
    def release(self, mu: float) -> None:
        further = charge(len(self.charges) + 1, mu)
        try:
            check_budget(self.charges, further, 10.0, DELTA)
        except Refused:
            assert spent([*self.charges, further], DELTA) > 10.0
        else:
            self.charges.append(further)

    @invariant()
    def within(self) -> None:
        now = spent(self.charges, DELTA)
        assert self.last <= now <= 10.0 * (1 + 1e-8)
        self.last = now


TestSpending = Spending.TestCase


def test_spent__a_charge_of_samples__asks_for_all_kinds_together() -> None:
    asked: list[object] = []

    def sampled(releases: tuple[tuple[float, float, int], ...], delta: float) -> float:
        asked.append((releases, delta))
        return 3.0

    sample = Charge(RUN, Step(1), Digest(bytes(32)), bytes(16), 0.5, 0.125, 10)
    charges = [sample, replace(sample, step=Step(2)), charge(3, 0.25)]
    assert spent(charges, DELTA, sampled) == 3.0
    assert asked == [(((2.0, 0.125, 20), (4.0, 1.0, 1)), DELTA)]
    check_budget(charges[:1], charges[1], 3.0, DELTA, sampled)
    with pytest.raises(Refused, match="beyond the run's budget"):
        check_budget(charges[:1], charges[1], 2.9, DELTA, sampled)


def test_read__a_charge_of_samples__comes_back() -> None:
    sample = Charge(RUN, Step(1), Digest(bytes(32)), bytes(16), 0.5, 0.125, 10)
    assert read(sample.line()) == ([sample], len(sample.line()))


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"rate": 1.5}, {"rate": 1}, {"releases": 0}, {"releases": True}])
def test_read__samples_that_no_step_takes__are_damage(change: dict[str, object]) -> None:
    fields = {**json.loads(Charge(RUN, Step(1), Digest(bytes(32)), bytes(16), 0.5, 0.125, 10).line()), **change}
    with pytest.raises(CorruptStore, match="damaged"):
        read(json.dumps(fields).encode() + b"\n")
