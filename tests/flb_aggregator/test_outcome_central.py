# SPDX-License-Identifier: Apache-2.0
"""Rounds under central privacy from closing to record: restart, budget, keys, adaptive clip norm, moments, encoded step."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from flb.errors import CorruptStore, Refused
from flb.privacy.ledger import read
from flb.server_optimizer import OPTIMIZERS
from flb.spec import ServerOptimizerSpec
from flb.types import ZERO_DIGEST
from flb_aggregator import outcome
from tests.central_rounds import Run, central_spec
from tests.sim import DOMAIN

pytestmark = pytest.mark.unit


def updates(run: Run, norm: float, count: int = 3) -> list[np.ndarray]:
    """So many equal updates of a norm."""
    return [np.full(run.size, norm / math.sqrt(run.size), dtype=np.float32)] * count


def keys_in(folder: Path) -> list[Path]:
    return sorted((folder / "noise").glob("*.key"))


def test_make__again_after_a_restart__is_the_same_record_and_one_charge(tmp_path: Path) -> None:
    run = Run(central_spec(), tmp_path)
    first = run.make(1, updates(run, 1))
    roll = run.made
    for path in (tmp_path / "blobs").glob("*"):
        if path.is_file() and path.name in (first.adapter.hex(), first.noise.noised_sum.hex()):  # type: ignore[union-attr]
            path.unlink()
    assert run.make(1, updates(run, 1)) == first and run.made == roll
    charges, _ = read((tmp_path / "noise" / "charges.jsonl").read_bytes())
    assert len(charges) == 1 and charges[0].mu == 1.0
    assert first.noise is not None and first.noise.releases == 1


def test_make__another_closing_of_the_same_step__has_another_key_and_another_charge(tmp_path: Path) -> None:
    run = Run(central_spec(), tmp_path)
    one, other = run.make(1, updates(run, 1)), run.make(1, updates(run, 1, 2))
    assert one.noise is not None and other.noise is not None
    assert (one.noise.releases, other.noise.releases) == (1, 2)
    difference = run.noised(one) - run.noised(other)  # the same noise would leave the third update bare
    assert float(np.std(difference / (0.5 * 2.0**32))) > 1
    assert len({path.read_bytes() for path in keys_in(tmp_path)}) == 2


def test_make__the_next_step__deletes_the_key_and_the_end_deletes_all(tmp_path: Path) -> None:
    run = Run(central_spec(), tmp_path)
    run.make(1, updates(run, 1))
    (key,) = keys_in(tmp_path)
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 32
    run.seal()
    run.make(2, updates(run, 1))
    assert [path.name.partition("-")[0] for path in keys_in(tmp_path)] == ["2"]
    outcome.forget_keys(run.folder / "adapters", DOMAIN.run)
    assert keys_in(tmp_path) == []


def test_make__a_release_beyond_the_budget__is_refused_and_draws_no_key(tmp_path: Path) -> None:
    run = Run(central_spec(epsilon=5.0), tmp_path)  # one round at multiplier 1 costs 4.38
    run.make(1, updates(run, 1))
    run.seal()
    with pytest.raises(Refused, match="round 2 would bring the run to epsilon 6.573, beyond its budget of 5"):
        run.make(2, updates(run, 1))
    assert keys_in(tmp_path) == []


def test_make__a_key_that_was_cut__is_corrupt(tmp_path: Path) -> None:
    run = Run(central_spec(), tmp_path)
    run.make(1, updates(run, 1))
    keys_in(tmp_path)[0].write_bytes(b"short")
    with pytest.raises(CorruptStore, match="is no noise key"):
        run.make(1, updates(run, 1))


def test_make__record__says_how_much_noise_and_not_from_which_seed(tmp_path: Path) -> None:
    run = Run(central_spec(clip_norm=0.25, multiplier=2.0), tmp_path)
    record = run.make(1, updates(run, 1))
    noise = record.noise
    assert noise is not None and (noise.clip_norm, noise.sigma, noise.delta) == (0.25, 0.5, 1e-5)
    assert noise.epsilon == pytest.approx(1.993, abs=1e-3) and noise.unclipped is None and noise.next_clip_norm == 0.25
    assert keys_in(tmp_path)[0].read_bytes().hex() not in run.blobs.get(run.made.record_digest).decode()


def test_make__a_clipped_cohort__adds_up_to_the_clip_norm_each(tmp_path: Path) -> None:
    run = Run(central_spec(clip_norm=0.5, multiplier=1e-5), tmp_path)
    total = run.noised(run.make(1, updates(run, 8.0))) * 2.0**-32
    assert float(np.linalg.norm(total)) == pytest.approx(1.5, rel=1e-3)


@pytest.mark.parametrize(("start", "rounds"), [(0.01, 30), (100.0, 30)])
def test_make__adaptive__the_clip_norm_reaches_the_quantile_and_stays(
    start: float, rounds: int, tmp_path: Path
) -> None:
    """ln C moves by at most 0.4 a round at rate 0.8; ln 100 is 4.6, so a dozen rounds reach 1."""
    spec = central_spec("adaptive", clip_norm=start, multiplier=0.01, denominator=7)
    spec = dataclasses.replace(
        spec, privacy=dataclasses.replace(spec.privacy, rate=0.8), ring=dataclasses.replace(spec.ring, norm_bound=128),
        rounds=dataclasses.replace(spec.rounds, steps=rounds),
    )  # fmt: skip
    run = Run(spec, tmp_path)
    norms = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    found = []
    for step in range(1, rounds + 1):
        record = run.make(step, [updates(run, norm, 1)[0] for norm in norms])
        assert record.noise is not None
        found.append((record.noise.clip_norm, record.noise.next_clip_norm))
        run.seal()
    assert found[0][0] == start
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
    assert all(0.85 < clip_norm < 1.15 for clip_norm, _ in found[15:])


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_make__moments_and_encoded_step__follow_from_the_noised_sum(optimizer: str, tmp_path: Path) -> None:
    spec = dataclasses.replace(central_spec(down="mxint8"), server_optimizer=ServerOptimizerSpec(optimizer, 0.1))
    run = Run(spec, tmp_path)
    for step in (1, 2):
        record = run.make(step, updates(run, 1))
        assert ZERO_DIGEST not in (record.down, record.remainder, record.optimizer_state)
        run.seal()
    assert OPTIMIZERS[optimizer].moments
