# SPDX-License-Identifier: Apache-2.0
"""Rules end to end, from files to the adapter: against their definitions, in any order, on any number of threads."""

import dataclasses
import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb import rounds
from flb.admission import layout_of
from flb.aggregation import rules
from flb.aggregation.gram import squared_distances
from flb.delta import norm_shift
from flb.errors import Refused
from flb.spec_sections import RunSpec
from flb.types import Address, Admitted, Digest, Step
from tests.rule_rounds import COUNT, ROBUST, TENSORS, combined, draw, ring_of, spec_for
from tests.sim import MemoryRegistry, manifest_for, members

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("mixing", ["none", "nearest_neighbours", "bucketing"])
@pytest.mark.parametrize("rule", ROBUST)
def test_combine__every_rule_and_mixing__is_its_definition_in_integers(rule: str, mixing: str, tmp_path: Path) -> None:
    spec, step = spec_for(rule, mixing=mixing), 1
    updates = draw(spec, step)
    before, after = (safetensors.numpy.load(blob) for blob in combined(spec, step, updates, tmp_path))
    ring = ring_of(spec, step, updates)
    reduced = np.rint(ring * 2.0 ** -norm_shift(spec.ring.norm_bound, 32)).astype(np.int64)
    gram = reduced @ reduced.T
    mixed = rules.mixture(spec.aggregation, squared_distances(gram), COUNT, bytes(32), Step(step))
    columns = np.random.default_rng(0).integers(0, ring.shape[1], 200)
    if rules.capabilities(spec.aggregation).coordinates:
        rows = ring if mixed is None else mixed.matrix @ ring
        first, last = rules.ranks(spec.aggregation, len(rows))
        total = np.sort(rows[:, columns], axis=0)[first:last].sum(axis=0)
        denominator = (last - first) * (1 if mixed is None else mixed.denominator)
    else:
        weights, denominator = rules.weigh(spec.aggregation, gram, [1] * COUNT, mixed)
        total = np.array(weights) @ ring[:, columns]
    moved = [float(value) / float(denominator) * 2.0**-32 for value in total]
    names = [tensor.name for tensor in layout_of(spec, Step(step)).tensors]
    flat_before, flat_after = (np.concatenate([held[name].ravel() for name in names]) for held in (before, after))
    assert flat_after[columns].tolist() == (flat_before[columns].astype(np.float64) + moved).astype("<f4").tolist()
    assert all((before[t.name] == after[t.name]).all() for t in TENSORS if t.name not in names)


@pytest.mark.parametrize("mode", ["factors", "alternate", "freeze_a"])
@pytest.mark.parametrize("mixing", ["none", "nearest_neighbours", "bucketing"])
@pytest.mark.parametrize("rule", ROBUST)
def test_combine__one_thread_or_two__gives_the_same_digest(rule: str, mixing: str, mode: str, tmp_path: Path) -> None:
    spec = spec_for(rule, mode, mixing)
    updates = draw(spec, 1)
    digests = {
        hashlib.sha256(combined(spec, 1, updates, tmp_path, threads=threads)[1]).hexdigest() for threads in (1, 2, 3)
    }
    assert len(digests) == 1


def closed_after(spec: RunSpec, arrival: list[int]) -> list[Address]:
    """Who is in the round's closing, in its order, after updates arrived in this one."""
    made = MemoryRegistry(spec, Digest(b"\x02" * 32))
    for member in members(COUNT):
        made.join(member)
    made.start()
    state, _ = rounds.step(rounds.State(spec.rounds), rounds.ChainAdvanced(made.view()))
    opening = state.opening
    assert opening is not None
    effects: tuple[rounds.Effect, ...] = ()
    for index in arrival:
        member = opening.cohort[index]
        admitted = Admitted(manifest_for(spec, opening, member, member.node), b"\x01" * 65, 100, b"\x02" * 65)
        state, effects = rounds.step(state, rounds.PeerUpdateAdmitted(rounds.name_of(opening), admitted))
    combines = [effect for effect in effects if isinstance(effect, rounds.Combine)]
    return [admitted.node for admitted in combines[0].closing.admitted]


@pytest.mark.parametrize("mode", ["factors", "alternate"])
@pytest.mark.parametrize("rule", ROBUST)
def test_combine__updates_that_arrive_in_another_order__give_the_same_digest(
    rule: str, mode: str, tmp_path: Path
) -> None:
    spec = spec_for(rule, mode)
    updates = draw(spec, 1)
    updates[8] = updates[4]  # a tie, that the order of nodes must break
    held = dict(zip((member.node for member in members(COUNT)), updates, strict=True))
    digests = set()
    for seed in range(3):
        arrival = np.random.default_rng(seed).permutation(COUNT).tolist()
        ordered = [held[node] for node in closed_after(spec, arrival)]
        digests.add(hashlib.sha256(combined(spec, 1, ordered, tmp_path, threads=1 + seed % 2)[1]).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("rule", ROBUST)
def test_combine__nodes_with_other_addresses__make_the_same_adapter_but_for_rounding(rule: str, tmp_path: Path) -> None:
    spec = spec_for(rule)
    updates = draw(spec, 1)
    one, other = (
        safetensors.numpy.load(combined(spec, 1, ordered, tmp_path)[1]) for ordered in (updates, updates[::-1])
    )
    assert all(np.abs(one[t.name] - other[t.name]).max() < 1e-6 for t in TENSORS)


@pytest.mark.parametrize("rule", [rule for rule in ROBUST if rule != "norm_bound"])
@pytest.mark.parametrize("mode", ["factors", "alternate"])
def test_combine__two_updates_thirty_times_as_large__move_it_little(rule: str, mode: str, tmp_path: Path) -> None:
    spec = spec_for(rule, mode)
    base, adapter = (safetensors.numpy.load(blob) for blob in combined(spec, 1, draw(spec, 1), tmp_path))
    for tensor in layout_of(spec, Step(1)).tensors:
        assert float((adapter[tensor.name] - base[tensor.name]).std()) < 3e-3, "honest values deviate by 1e-3"


@pytest.mark.parametrize("rule", ["geometric_median", "centered_clipping", "trimmed_mean", "median", "norm_bound"])
def test_combine__equal_updates__move_by_exactly_that_update(rule: str, tmp_path: Path) -> None:
    spec = spec_for(rule)
    update = draw(spec, 1)[5]
    base, adapter = (safetensors.numpy.load(blob) for blob in combined(spec, 1, [update] * 5, tmp_path))
    for name, values in update.items():
        exact = [float(Fraction(round(Fraction(float(v)) * 2**32), 2**32)) for v in values.ravel()[:50]]
        assert adapter[name].ravel()[:50].tolist() == (base[name].ravel()[:50] + np.array(exact)).astype("<f4").tolist()


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("mode", ["factors", "freeze_a"])
def test_combine__updates_of_zeros__leave_the_base(rule: str, mode: str, tmp_path: Path) -> None:
    spec = spec_for(rule, mode)
    zeros = [{name: np.zeros_like(values) for name, values in draw(spec, 1, 1)[0].items()}] * COUNT
    base, adapter = combined(spec, 1, zeros, tmp_path)
    assert base == adapter


def test_combine__multi_krum__does_not_read_again_what_it_left_out(tmp_path: Path) -> None:
    """An update that lost has no weight: what it holds cannot change the adapter."""
    spec = spec_for("multi_krum")
    updates = draw(spec, 1)
    plain = combined(spec, 1, updates, tmp_path)[1]
    updates[0] = {name: values * np.float32(1.5) for name, values in updates[0].items()}
    assert combined(spec, 1, updates, tmp_path)[1] == plain


@pytest.mark.parametrize(
    ("rule", "more", "count", "sentence"),
    [
        ("krum", {}, 6, "krum with 2 wrong updates needs at least 7 updates, there are 6"),
        ("median", {}, 4, "median with 2 wrong updates needs at least 5 updates, there are 4"),
        ("trimmed_mean", {"mixing": "nearest_neighbours"}, 4, "after nearest_neighbours .* at least 5"),
        ("median", {"mixing": "bucketing", "byzantine": 2}, 8, "median after bucketing .* at least 9 updates"),
        ("multi_krum", {"selected": 6}, 7, "at least 8 updates"),
        ("krum", {"neighbours": 9}, 9, "at least 10 updates"),
        ("krum", {"weights": "examples"}, 9, "krum lets every update count once"),
        ("norm_bound", {"weights": "examples"}, 9, "norm_bound lets every update count once"),
        ("mean", {"mixing": "bucketing", "weights": "examples"}, 9, "mean after bucketing lets every update count"),
    ],
)
def test_combine__a_round_that_the_rule_cannot_satisfy__is_refused(
    rule: str, more: dict[str, int], count: int, sentence: str, tmp_path: Path
) -> None:
    spec = spec_for(rule, **more)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=sentence):
        combined(spec, 1, draw(spec, 1, count), tmp_path)


def test_combine__weights_that_are_all_zero__are_refused(tmp_path: Path) -> None:
    spec = spec_for("mean", weights="examples", byzantine=0)
    with pytest.raises(Refused, match="weight 0"):
        combined(spec, 1, draw(spec, 1), tmp_path, [0] * COUNT)


def test_combine__sums_beyond_63_bits__are_refused(tmp_path: Path) -> None:
    spec = spec_for("geometric_median", mixing="nearest_neighbours")
    wide = dataclasses.replace(spec, ring=dataclasses.replace(spec.ring, value_bound=2**9, norm_bound=2**10))
    with pytest.raises(Refused, match="63 bits"):
        combined(wide, 1, draw(spec, 1), tmp_path)


@pytest.mark.parametrize(("rule", "mode"), [("krum", "stack"), ("median", "stack"), ("trimmed_mean", "product")])
def test_combine__a_mode_whose_updates_cannot_be_compared__is_refused(rule: str, mode: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"{rule} cannot compare the updates of mode {mode}"):
        combined(spec_for(rule, mode), 1, draw(spec_for(rule, "factors"), 1), tmp_path)
