# SPDX-License-Identifier: Apache-2.0
"""The auditor's checks: an honest run has no finding, and every kind of lie has its own."""

import dataclasses
from typing import Any

import pytest

from flb import audit, identity, payouts, records, scoring
from flb import spec as specs
from flb.audit import Finding
from flb.events import ChainRoundRolled
from flb.roster import draw
from flb.types import ZERO_DIGEST, Address, Admitted, Digest, Member
from tests.sim import AGGREGATOR_KEY, DOMAIN, MemoryRegistry, key_for, manifest_for, members, signed, small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()
SPEC_DIGEST = specs.digest_of(SPEC.encode())
OTHER = Digest(b"\x09" * 32)


def admit(opening: Any, member: Member, **changes: Any) -> Admitted:
    manifest = dataclasses.replace(
        manifest_for(SPEC, opening, member, bytes(admission_size())), **changes.pop("manifest", {})
    )
    weight = changes.get("weight", 100)
    receipt = identity.receipt_hash(identity.receipt_for(manifest, weight))
    signature = identity.sign(changes.get("receipt_key", AGGREGATOR_KEY), DOMAIN, receipt)
    return Admitted(manifest, signed(manifest, changes.get("key", key_for(member))), weight, signature)


def admission_size() -> int:
    from flb.admission import layout_of
    from flb.types import Step

    return layout_of(SPEC, Step(1)).size


def world(**changes: Any) -> tuple[records.Record, ChainRoundRolled, Any, MemoryRegistry]:
    """One sealed round; `changes` spoil its first update."""
    registry = MemoryRegistry(SPEC, Digest(b"\x02" * 32))
    for member in members(3):
        registry.join(member)
    registry.start()
    opened = registry.view().opening
    assert opened is not None
    opening = draw(opened, SPEC.rounds)
    first, *rest = opening.cohort
    admitted = (admit(opening, first, **changes), *(admit(opening, member) for member in rest))
    closing = records.Closing(admitted, (), ())
    rows = payouts.after((), scoring.of_round(admitted, SPEC), SPEC.scoring.payout)
    record = records.make(
        DOMAIN, SPEC_DIGEST, opening, ZERO_DIGEST, closing, Digest(b"\x03" * 32), standings=rows,
        round_payout=SPEC.scoring.payout,
    )  # fmt: skip
    registry.roll(records.roll_of(record, records.encode(record)))
    return record, registry.view().rolls[0], opened, registry


def findings(record: records.Record, rolled: ChainRoundRolled, opened: Any) -> list[str]:
    found = audit.check_record(
        record, rolled, opened, previous=ZERO_DIGEST, spec=SPEC, spec_digest=SPEC_DIGEST, domain=DOMAIN,
        aggregator=identity.address_of(AGGREGATOR_KEY),
    )  # fmt: skip
    return [finding.what for finding in found]


def test_check_record__honest__has_no_finding() -> None:
    record, rolled, opened, registry = world()
    assert findings(record, rolled, opened) == []
    assert list(audit.check_hash_chain(registry.events)) == []


@pytest.mark.parametrize(
    "name", ["spec", "seed", "previous", "base", "adapter", "roster_root", "updates_root", "scores_root", "payout_root"]
)
def test_check_record__one_field_changed__is_named(name: str) -> None:
    record, rolled, opened, _ = world()
    assert f"the record's {name} differs from the chain" in findings(
        dataclasses.replace(record, **{name: OTHER}), rolled, opened
    )


def test_check_record__update_left_out__is_seen_in_root_number_and_cohort() -> None:
    record, rolled, opened, _ = world()
    short = records.Closing(record.closing.admitted[1:], (), ())
    found = findings(dataclasses.replace(record, closing=short), rolled, opened)
    assert "the updates root on chain does not follow from the record's updates" in found
    assert "admitted, late and missing nodes are not the cohort that the seed draws" in found


def test_check_record__below_quorum__is_seen() -> None:
    record, rolled, opened, _ = world()
    alone = records.Closing(record.closing.admitted[:1], (), tuple(m.node for m in members(3)[1:]))
    assert "1 updates are below the quorum" in findings(dataclasses.replace(record, closing=alone), rolled, opened)


def test_check_record__out_of_order__is_seen() -> None:
    record, rolled, opened, _ = world()
    turned = records.Closing(record.closing.admitted[::-1], (), ())
    found = findings(dataclasses.replace(record, closing=turned), rolled, opened)
    assert any("not in order of node address" in text for text in found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": 1000}, "its weight 1000 does not follow from its claim"),
        ({"key": bytes(31) + b"\x55"}, "the manifest is not signed by the key"),
        ({"receipt_key": bytes(31) + b"\x55"}, "its receipt is not signed by the round's aggregator"),
        ({"manifest": {"base": OTHER}}, "the update starts from another adapter"),
        ({"manifest": {"dataset_root": OTHER}}, "the manifest names no dataset"),
    ],
)
def test_check_record__lie_about_one_update__names_the_node(changes: dict[str, Any], words: str) -> None:
    record, rolled, opened, _ = world(**changes)
    assert any(words in text for text in findings(record, rolled, opened))


def test_check_hash_chain__forged_event__is_found_and_the_rest_still_follows() -> None:
    _, _, _, registry = world()
    forged = [dataclasses.replace(e, accepted=2) if isinstance(e, ChainRoundRolled) else e for e in registry.events]
    assert [finding.round for finding in audit.check_hash_chain(forged)] == [1]


def test_check_hash_chain__void_rounds__are_links_too() -> None:
    registry = MemoryRegistry(SPEC, Digest(b"\x02" * 32))
    registry.join(members(1)[0])
    registry.start()
    registry.expire(1)  # type: ignore[arg-type]
    registry.expire(2)  # type: ignore[arg-type]
    assert list(audit.check_hash_chain(registry.events)) == []


def test_finding__in_words__says_where() -> None:
    text = str(Finding("it differs", 3, members(1)[0].node, "t"))  # type: ignore[arg-type]
    assert text == f"round 3, node 0x{members(1)[0].node.hex()}, tensor t: it differs"
    assert str(Finding("it differs")) == "run: it differs"


@pytest.mark.parametrize("name", ["remainder", "down"])
def test_check_record__encoded_step_in_a_run_whose_adapter_travels_whole__is_found(name: str) -> None:
    record, rolled, opened, _ = world()
    found = findings(dataclasses.replace(record, **{name: OTHER}), rolled, opened)
    assert any(f"the record's {name} does not fit a run with down: f32" in text for text in found)


def score_findings(record: records.Record, rolled: ChainRoundRolled, before: Any = ()) -> list[Finding]:
    return list(audit.check_scores(record, rolled, before, SPEC))


def test_check_scores__honest__has_no_finding_with_and_without_the_record_before() -> None:
    record, rolled, _, _ = world()
    assert score_findings(record, rolled) == score_findings(record, rolled, None) == []


@pytest.mark.parametrize(
    ("column", "words"), [("score", "score"), ("total", "total score"), ("payout", "cumulative payout")]
)
def test_check_scores__one_node_s_line__names_node_and_column(column: str, words: str) -> None:
    """The aggregator rolls roots of a table of its own making."""
    record, rolled, _, _ = world()
    row = record.standings[1]
    forged = dataclasses.replace(row, **{column: getattr(row, column) + 1})
    table = (record.standings[0], forged, record.standings[2])
    lie = dataclasses.replace(record, standings=table)
    roots = {"scores_root": payouts.scores_tree(table).root, "payout_root": payouts.payout_root(table, 1)}
    (found,) = score_findings(lie, dataclasses.replace(rolled, **roots))
    assert (found.node, found.round) == (row.node, 1)
    told = getattr(forged, column)
    assert found.what == f"its {words} {told} in the record should be {told - 1}"
    roots = [f"the {name} root on chain does not follow" for name in ("scores", "payout")]
    both = [finding.what for finding in score_findings(lie, rolled)]
    assert any(what.startswith(tuple(roots)) for what in both) == (column != "score")


def test_check_scores__left_out_or_made_up__names_the_node() -> None:
    record, rolled, _, _ = world()
    left_out = dataclasses.replace(record, standings=record.standings[1:])
    assert record.standings[0].node in [finding.node for finding in score_findings(left_out, rolled)]
    assert record.standings[0].node in [finding.node for finding in score_findings(left_out, rolled, None)]
    ghost = payouts.Standing(Address(b"\xff" * 20), 0, 0, 0)
    made_up = dataclasses.replace(record, standings=(*record.standings, ghost))
    assert Finding("it stands in the record's table, but never had an update admitted", record.round, ghost.node) in (
        score_findings(made_up, rolled)
    )


def test_check_scores__standing_before__is_added_to() -> None:
    record, rolled, _, _ = world()
    before = tuple(dataclasses.replace(row, score=9, total=9, payout=9) for row in record.standings[:1])
    found = score_findings(record, rolled, before)
    assert [(one.node, one.what) for one in found] == [
        (before[0].node, "its total score 100 in the record should be 109")
    ]
    full = (dataclasses.replace(record.standings[0], total=2**256 - 1),)
    assert "does not fit 256 bits" in score_findings(record, rolled, full)[0].what
