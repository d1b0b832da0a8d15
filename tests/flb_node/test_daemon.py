# SPDX-License-Identifier: Apache-2.0
"""How a node keeps, gives up and renews its channel as the chain and the aggregator change."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flb import identity
from flb.adapter_blob import form_of
from flb.errors import DatasetError, Impostor, NotAMember, Refused, TrainingFailed, Unavailable
from flb.roster import RunView
from flb.spec import RunSpec, digest_of
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Digest, Step
from flb_aggregator.publish import make_adapter_zero
from flb_node.daemon import Daemon
from flb_node.evaluation import Evaluation, Figures, HeldOut
from flb_node.pipeline import Tensors
from tests.served import Served, serve
from tests.sim import AGGREGATOR_KEY, DOMAIN, key_for, small_spec

pytestmark = pytest.mark.e2e

OTHER = Digest(b"\x77" * 32)
AGGREGATOR = identity.address_of(AGGREGATOR_KEY)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec()) as running:
        yield running


@pytest.fixture
def node(served: Served, tmp_path: Path) -> Iterator[Daemon]:
    """A node's daemon that has not looked at the chain; its tests say what is there."""
    made = node_of(served, tmp_path)
    yield made
    made.stop.set()
    made.disconnect()


def node_of(served: Served, tmp_path: Path, number: int = 0) -> Daemon:
    """The daemon of a node of the cohort, the first one unless it is said."""
    member = served.opening().cohort[number]
    seen: Any = None
    return Daemon(
        domain=DOMAIN, node=member.node, key=key_for(member), chain=seen, blobs=BlobStore(tmp_path / "blobs"),
        folder=tmp_path, secret=bytes(32), dataset=(member.dataset_root, member.records), entrance=seen, make_trainer=seen,
        stop=threading.Event(), status=lambda state, **details: None, log=served.lines.append, poll_seconds=0.02,
    )  # fmt: skip


def on_chain(served: Served, cert: Digest, following: Digest = ZERO_DIGEST) -> RunView:
    return dataclasses.replace(served.registry.view(), spec=ZERO_DIGEST, uri=served.address, cert_digest=cert,
                               next_cert_digest=following)  # fmt: skip


def test_connect__certificate_that_the_chain_does_not_name__waits_and_then_connects(
    served: Served, node: Daemon
) -> None:
    assert served.certificates is not None
    own = served.certificates.current.digest
    node.view = on_chain(served, OTHER)
    with pytest.raises(Unavailable, match=f"shows the certificate {own.hex()}, and the chain names {OTHER.hex()}"):
        node.connect()
    assert node.uplink is None
    node.view = on_chain(served, own)
    node.connect()
    assert node.uplink is not None and node.uplink.cert_digest == own


def test_connect__spec_whose_choices_do_not_go_together__is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    spec = small_spec()
    by_hand = dataclasses.replace(spec, lora=dataclasses.replace(spec.lora, align=True))
    with serve(tmp_path / "aggregator", by_hand) as served:
        node = node_of(served, tmp_path)
        assert served.certificates is not None
        digest = digest_of(served.spec.encode())
        node.view = dataclasses.replace(on_chain(served, served.certificates.current.digest), spec=digest)
        with pytest.raises(
            Refused, match="lora.align is true, and mode factors has no factors to turn: set lora.align"
        ):
            node.connect()
        assert node.spec is None
        node.disconnect()


def test_work__nodes_of_other_ranks__stack_what_they_train_at_their_own(tmp_path: Path) -> None:
    spec = small_spec("stack", max_cohort=3)
    spec = dataclasses.replace(spec, lora=dataclasses.replace(spec.lora, ranks=(1, 2), max_rank=18))
    seen: list[dict[str, tuple[int, ...]]] = []

    def train(adapter: Tensors, names: frozenset[str], seed: int, step: Step) -> Tensors:
        seen.append({name: value.shape for name, value in adapter.items()})
        return {name: adapter[name] + np.float32(2.0**-8) for name in names}

    with serve(tmp_path / "aggregator", spec) as served:
        for held in (0, 5):
            opening = served.opening()
            for number, rank in enumerate((1, 2, 2)):
                (folder := tmp_path / f"{opening.step}-{number}").mkdir()
                node = node_of(served, folder, number)
                node.rank, node.spec, node.train = rank, served.spec, train
                assert served.certificates is not None
                node.view = dataclasses.replace(
                    on_chain(served, served.certificates.current.digest), spec=digest_of(served.spec.encode())
                )
                node.connect()
                node.work(opening, served.spec)
                node.disconnect()
                shapes = seen.pop()
                assert {shape for name, shape in shapes.items() if ".frozen." not in name} == {
                    (rank, 40_000),
                    (8, rank),
                }
                assert {shape for name, shape in shapes.items() if ".frozen." in name} == (
                    {(held, 40_000), (8, held)} if held else set()
                )
            rounds = 1 if held == 0 else 2
            served.await_true(lambda rounds=rounds: len(served.daemon.view.rolls) == rounds)
        with served.daemon.blobs.path(served.daemon.view.adapter).open("rb") as blob:
            assert form_of(spec, blob.read).rank == 10


def test_connect__rotation__keeps_the_channel_until_its_certificate_is_named_no_more(
    served: Served, node: Daemon
) -> None:
    assert served.certificates is not None
    own = served.certificates.current.digest
    node.view = on_chain(served, own)
    node.connect()
    first = node.uplink
    served.certificates.prepare()
    following = served.certificates.next_digest
    node.view = on_chain(served, own, following)
    node.connect()
    assert node.uplink is first and first is not None
    served.certificates.switch()
    node.connect()
    assert node.uplink is first
    node.view = on_chain(served, following)
    node.connect()
    second = node.uplink
    assert second is not None and second is not first and second.cert_digest == following


def test_disconnect__after_a_break__fetches_and_compares_anew(served: Served, node: Daemon) -> None:
    assert served.certificates is not None
    own = served.certificates.current.digest
    served.certificates.prepare()
    following = served.certificates.next_digest
    node.view = on_chain(served, own, following)
    node.connect()
    assert node.uplink is not None and node.uplink.cert_digest == own
    served.certificates.switch()
    node.disconnect()
    node.connect()
    assert node.uplink is not None and node.uplink.cert_digest == following


class Registry:
    """A run's registry on which the node is no member yet; the run has not started."""

    def __init__(self, served: Served) -> None:
        assert served.certificates is not None
        self.seen = dataclasses.replace(
            on_chain(served, served.certificates.current.digest), opening=None, members={}, aggregator=AGGREGATOR
        )
        self.digest = digest_of(served.spec.encode())

    def view(self) -> RunView:
        return self.seen

    def spec(self) -> Digest:
        return self.digest

    def confirm(self, blocks: int) -> None:
        """Every block counts."""


class Door:
    """Counts who comes in, and lets nobody."""

    def __init__(self) -> None:
        self.tried = 0

    def knock(self, _: RunView) -> None:
        """Everybody may come."""

    def enter(self, *_: Any) -> bool:
        self.tried += 1
        return False


def test_cycle__run_that_cannot_use_the_data__is_told_before_anything_is_asked_of_the_chain(
    served: Served, node: Daemon
) -> None:
    def check(spec: RunSpec) -> None:
        assert spec == served.spec
        raise DatasetError("no record can be used", "join another run")

    door: Any = Door()
    node.chain, node.entrance, node.check = Registry(served), door, check  # type: ignore[assignment]
    for _ in range(2):  # a refusal is not forgotten by the next look
        with pytest.raises(DatasetError, match="no record can be used"):
            node.cycle()
    assert door.tried == 0 and node.spec is None
    node.check = lambda spec: None
    assert not node.cycle()
    assert door.tried == 1 and node.spec == served.spec and node.train is None


def test_cycle__run_that_does_not_want_the_node__is_told_before_the_data_is_looked_at(
    served: Served, node: Daemon
) -> None:
    class Shut(Door):
        def knock(self, _: RunView) -> None:
            raise NotAMember("this run admits by invitation", "ask for an invite")

    door: Any = Shut()
    node.chain, node.entrance = Registry(served), door  # type: ignore[assignment]
    node.check = lambda spec: pytest.fail("the node may not join")
    with pytest.raises(NotAMember):
        node.cycle()
    assert node.uplink is None


def test_cycle__spec_that_the_contract_does_not_name__joins_nothing(served: Served, node: Daemon) -> None:
    door: Any = Door()
    chain = Registry(served)
    chain.digest = OTHER
    node.chain, node.entrance = chain, door  # type: ignore[assignment]
    with pytest.raises(Impostor, match="run spec is not the one on chain"):
        node.cycle()
    assert door.tried == 0


def test_cycle__run_that_is_over__asks_nothing_of_the_data(served: Served, node: Daemon) -> None:
    chain: Any = Registry(served)
    chain.seen = dataclasses.replace(chain.seen, finished=True, spec=chain.digest)
    node.chain, node.view = chain, chain.seen
    node.check = lambda spec: pytest.fail("the run is over")
    node.connect()
    assert node.spec == served.spec and node.train is None


def test_work__training_failed__costs_the_round_and_not_the_node(served: Served, node: Daemon) -> None:
    assert served.certificates is not None
    node.view = on_chain(served, served.certificates.current.digest)
    node.connect()
    tried: list[int] = []

    def fails(adapter: Any, names: frozenset[str], seed: int, step: int) -> Any:
        tried.append(step)
        raise TrainingFailed("the loss of optimizer step 2 is nan", "nothing is sent for this round")

    node.train, node.spec, opening = fails, small_spec(), served.opening()
    node.work(opening, node.spec)
    assert (opening.round, opening.seed) in node.done and tried == [opening.step]
    assert any("no update of this node counts: the loss of optimizer step 2 is nan" in line for line in served.lines)
    assert not list(node.folder.glob("step-*.json"))


def test_work__an_adapter_waits_to_be_measured__its_blob_outlives_the_steps(served: Served, node: Daemon) -> None:
    assert served.certificates is not None
    node.view = on_chain(served, served.certificates.current.digest)
    node.connect()
    node.keep_steps, node.spec = 1, small_spec()
    older = make_adapter_zero(node.spec.tensors, 7, node.blobs)

    def measure(adapter: Any) -> Iterator[Figures | None]:
        yield {"held_out": {"loss": 2.0, "perplexity": 7.4, "accuracy": 0.5, "tokens": 9}}

    evaluation = Evaluation(node.folder, node.blobs, HeldOut(), served.lines.append, lambda figures: None)
    evaluation.measure = measure
    evaluation.add(node.spec, Step(0), older)
    forgotten = node.blobs.put(b"what nobody needs")

    def fails(adapter: Any, names: frozenset[str], seed: int, step: int) -> Any:
        raise TrainingFailed("the loss of optimizer step 2 is nan", "nothing is sent for this round")

    node.train, node.evaluation = fails, evaluation
    node.work(served.opening(), node.spec)
    assert node.blobs.has(older) and not node.blobs.has(forgotten)
    assert not evaluation.advance(lambda: False, float("inf"))
    assert not any("was not measured" in line for line in served.lines)
    assert (node.folder / "best" / "adapter_model.safetensors").exists()
