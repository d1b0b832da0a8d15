# SPDX-License-Identifier: Apache-2.0
"""What is deleted, and above all what is not: nothing that a record, an open round or a pending roll needs."""

import dataclasses
from pathlib import Path

import pytest

from flb.records import Closing, Roll
from flb.roster import RunView
from flb.rounds import State, Work
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Admitted, Digest, Round, Step
from flb_aggregator import retention
from tests.sim import MemoryRegistry, manifest_for, members, opening, small_spec, update_bytes

pytestmark = pytest.mark.unit

SPEC = small_spec()


def digest(text: str) -> Digest:
    return Digest(text.encode().ljust(32, b"."))


def registry(rounds: str) -> MemoryRegistry:
    """A run whose rounds were rolled (r) or voided (v), with one more open."""
    made = MemoryRegistry(SPEC, digest("adapter 0"))
    for member in members(3):
        made.join(member)
    made.start()
    for number, how in enumerate(rounds, 1):
        if how == "v":
            made.expire(Round(number))
        else:
            made.roll(
                Roll(Round(number), digest(f"record {number}"), digest(f"adapter {number}"), digest("u"), ZERO_DIGEST,
                     ZERO_DIGEST, 2, 200)
            )  # fmt: skip
    return made


def admitted(text: str, number: int = 1) -> Admitted:
    opened = opening(number=number)
    member = opened.cohort[0]
    manifest = manifest_for(SPEC, opened, member, update_bytes(SPEC, Step(1), member, opened.base))
    return Admitted(dataclasses.replace(manifest, digest=digest(text)), bytes(65), 100, bytes(65))


def updates_of(record: Digest) -> tuple[Digest, ...]:
    """Every record names one update of its own."""
    return (digest("update of " + record.rstrip(b".").decode()),)


def needed(view: RunView, keep: int | None, **works: Work) -> set[Digest]:
    state = State(SPEC.rounds, works={(Round(int(name[1:])), digest(name)): work for name, work in works.items()})
    return retention.needed(view, state, updates_of, keep, lambda record: ())


def test_needed__policy_all__keeps_every_update_of_a_record() -> None:
    found = needed(registry("rrv").view(), None)
    assert {digest(f"update of record {number}") for number in (1, 2)} <= found
    assert {digest("adapter 0"), digest("adapter 1"), digest("adapter 2")} <= found
    assert {digest("record 1"), digest("record 2")} <= found


@pytest.mark.parametrize(("keep", "kept"), [(1, {3}), (2, {2, 3}), (9, {1, 2, 3})])
def test_needed__policy_of_some_rounds__lets_only_older_updates_go(keep: int, kept: set[int]) -> None:
    found = needed(registry("rrr").view(), keep)
    assert {n for n in (1, 2, 3) if digest(f"update of record {n}") in found} == kept
    assert {digest(f"record {n}") for n in (1, 2, 3)} | {digest(f"adapter {n}") for n in range(4)} <= found


def test_needed__open_round__keeps_what_it_admitted_under_any_policy() -> None:
    work = Work(admitted={admitted("open").node: admitted("open", 2)})
    assert digest("open") in needed(registry("r").view(), 1, r2=work)


def test_needed__void_round__lets_its_updates_go() -> None:
    work = Work(admitted={admitted("void").node: admitted("void")})
    assert digest("void") not in needed(registry("v").view(), None, r1=work)


def test_needed__roll_that_the_chain_does_not_show__keeps_record_and_adapter() -> None:
    roll = Roll(Round(2), digest("new record"), digest("new adapter"), digest("u"), ZERO_DIGEST, ZERO_DIGEST, 1, 100)
    one = admitted("input", 2)
    work = Work(admitted={one.node: one}, closing=Closing((one,), (), ()), roll=roll)
    assert {digest("new record"), digest("new adapter"), digest("input")} <= needed(registry("r").view(), 1, r2=work)


def test_needed__finished_run__keeps_its_last_adapter_and_record() -> None:
    made = registry("rrr")  # the third roll ends the run of three steps
    assert made.view().finished
    assert {digest("adapter 3"), digest("record 3")} <= needed(made.view(), 1)


def test_delete_others__young_and_foreign_files__stay(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    kept, dropped = store.put(b"kept"), store.put(b"dropped")
    (store.folder / "note").write_text("not a blob")
    born = store.path(dropped).stat().st_mtime
    assert store.delete_others({kept}, born) == 0, "it is not older than that"
    assert store.delete_others({kept}, born + 60) == 1
    assert sorted(path.name for path in store.folder.iterdir()) == sorted([kept.hex(), "note"])


def step_of(record: Digest) -> tuple[Digest, ...]:
    """Every record names an encoded step and a remainder of its own."""
    name = record.rstrip(b".").decode()
    return (digest(f"step of {name}"), digest(f"state of {name}"))


@pytest.mark.parametrize(("keep", "kept"), [(None, {1, 2, 3}), (1, {2, 3}), (2, {1, 2, 3}), (9, {1, 2, 3})])
def test_needed__encoded_steps__stay_with_the_updates_and_the_remainder_that_those_start_from(
    keep: int | None, kept: set[int]
) -> None:
    found = retention.needed(registry("rrr").view(), State(SPEC.rounds), updates_of, keep, step_of)
    for what in ("step", "state"):
        assert {n for n in (1, 2, 3) if digest(f"{what} of record {n}") in found} == kept
