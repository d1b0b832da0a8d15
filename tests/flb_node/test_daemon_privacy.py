# SPDX-License-Identifier: Apache-2.0
"""A node's daemon under local privacy against a real aggregator: what arrives, and what never leaves."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flb.errors import Refused
from flb.spec import digest_of
from flb.store import BlobStore
from flb.types import Digest, Step
from flb_aggregator.publish import make_adapter_zero
from flb_node.daemon import Daemon
from flb_node.local_privacy import LocalPrivacy
from tests.flb_node.private_runs import private_spec
from tests.served import Served, serve
from tests.sim import DOMAIN, key_for

pytestmark = pytest.mark.e2e


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", private_spec(epsilon=8.0, steps=1)) as running:
        yield running


@pytest.fixture
def node(served: Served, tmp_path: Path) -> Iterator[Daemon]:
    """The daemon of the first node of the cohort, connected; every training adds 0.25."""
    member = served.opening().cohort[0]
    folder = tmp_path / "node"
    folder.mkdir()
    seen: Any = served.registry
    made = Daemon(
        domain=DOMAIN, node=member.node, key=key_for(member), chain=seen, blobs=BlobStore(folder / "blobs"),
        folder=folder, secret=bytes(32), dataset=(member.dataset_root, member.records), entrance=seen,
        make_trainer=lambda spec: lambda adapter, names, seed, step: {n: v + np.float32(0.25) for n, v in adapter.items()},
        stop=threading.Event(), status=lambda state, **details: None, log=served.lines.append, poll_seconds=0.02,
        privacy=LocalPrivacy(DOMAIN.run, folder, tmp_path / "ledgers", lambda: (b"one", b"two")),
    )  # fmt: skip
    assert served.certificates is not None
    made.view = dataclasses.replace(
        served.registry.view(), spec=digest_of(served.spec.encode()), uri=served.address,
        cert_digest=served.certificates.current.digest,
    )  # fmt: skip
    made.uplink = made.reach()
    made.spec, made.train = served.spec, made.make_trainer(served.spec)
    yield made
    made.stop.set()
    made.disconnect()


def test_work__one_round__delivers_noise_of_the_spec_and_no_figure_of_the_training(
    served: Served, node: Daemon
) -> None:
    opening = served.opening()
    node.work(opening, served.spec)
    assert any("delivered" in line for line in served.lines)
    sealed = node.seal(opening.round, opening.step, opening.base, served.spec)
    tensors = safetensors.numpy.load_file(served.folder / "blobs" / sealed.digest.hex())
    values = np.concatenate([value.reshape(-1) for value in tensors.values()])
    assert abs(float(np.std(values)) / served.spec.privacy.sigma - 1) < 0.05
    told = (served.folder / "rounds.jsonl").read_text() if (served.folder / "rounds.jsonl").exists() else ""
    errors = [error for line in told.splitlines() for error in json.loads(line).get("codec_error", {}).values()]
    assert sealed.codec_error == 0.0 and set(errors) <= {0.0}


def test_work__another_release_of_the_same_step__is_beyond_the_budget(served: Served, node: Daemon) -> None:
    """A reorg brings another base: the budget was made for one release, and the node leaves the run with a sentence."""
    opening = served.opening()
    node.work(opening, served.spec)
    other: Digest = make_adapter_zero(served.spec.tensors, 7, node.blobs)
    with pytest.raises(Refused, match="step 1 would bring this dataset to epsilon"):
        node.seal(opening.round, Step(1), other, served.spec)


def test_work__opened_again_after_a_void_round__sends_the_same_bytes_and_pays_nothing(
    served: Served, node: Daemon
) -> None:
    opening = served.opening()
    first = node.seal(opening.round, opening.step, opening.base, served.spec)
    again = node.seal(opening.round, opening.step, opening.base, served.spec)
    assert first == again and node.privacy is not None and len(node.privacy.ledger().charges()) == 1
