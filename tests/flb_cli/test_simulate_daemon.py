# SPDX-License-Identifier: Apache-2.0
"""A simulated run against the real one: the same nodes over a real port make the same adapters and roots."""

from dataclasses import replace
from pathlib import Path

import pytest

from flb import identity
from flb.memory_registry import MemoryRegistry
from flb.spec import RunSpec, digest_of
from flb.store import BlobStore
from flb.types import Digest, Member, Opening
from flb_aggregator.intake import Spool
from flb_aggregator.publish import make_adapter_zero
from flb_cli.simulate_aggregator import Aggregator
from flb_cli.simulate_engine import Serial
from flb_cli.simulate_node import Node
from tests.flb_cli.test_simulate_engine import trainer
from tests.served import Served, serve
from tests.sim import DOMAIN, key_for, members, small_spec

pytestmark = pytest.mark.e2e


def nodes_in(folder: Path) -> list[Node]:
    """The members of the served registry, as nodes with folders of their own."""
    made = []
    for number, member in enumerate(members(3), start=1):
        home = folder / str(number)
        home.mkdir(parents=True)
        dataset = (member.dataset_root, member.records)
        made.append(Node(number, member.node, key_for(member), b"\x05" * 32, dataset, home, trainer(number)))
    return made


def deliver(served: Served, node: Node, opening: Opening, spec: RunSpec, blobs: BlobStore) -> None:
    """What the daemon of a node does in one round."""
    blobs.put(served.daemon.blobs.get(opening.base))
    sealed = node.seal(opening, spec, DOMAIN, blobs)
    manifest = node.manifest(opening, spec, digest_of(spec.encode()), sealed)
    signature = identity.sign(node.key, DOMAIN, identity.manifest_hash(manifest))
    member = Member(node.address, node.address, node.address)
    served.uplink(member).deliver(manifest, signature, sealed.path, lambda done, size: None, sealed.codec_error)


@pytest.mark.parametrize(("mode", "codec", "down"), [("factors", "mxint8", "mxint8"), ("alternate", "f32", "f32")])
def test_simulated_run__real_aggregator__same_adapters_and_roots(
    tmp_path: Path, mode: str, codec: str, down: str
) -> None:
    spec = small_spec(mode, codec, down, steps=2)
    blobs = BlobStore(tmp_path / "simulated" / "blobs")
    spec = replace(spec, adapter=make_adapter_zero(spec.tensors, spec.training.seed, blobs).hex())
    blobs.put(spec.encode())
    registry = MemoryRegistry(spec, Digest(bytes.fromhex(spec.adapter)))
    spool = Spool(tmp_path / "simulated" / "spool", blobs)
    spool.folder.mkdir()
    aggregator = Aggregator(
        spec, digest_of(spec.encode()), DOMAIN, registry, blobs, spool, tmp_path / "simulated" / "adapters"
    )
    Serial(aggregator, nodes_in(tmp_path / "in-process"), BlobStore(tmp_path / "in-process" / "blobs")).run()

    with serve(tmp_path / "served", spec) as served:
        assert served.spec == spec
        nodes, store = nodes_in(tmp_path / "over-a-port"), BlobStore(tmp_path / "over-a-port" / "blobs")
        for number in (1, 2):
            served.await_true(lambda number=number: served.opening().round == number)
            opening = served.opening()
            for node in reversed(nodes):
                deliver(served, node, opening, spec, store)
            served.await_true(lambda number=number: len(served.daemon.view.rolls) == number)
        real = served.daemon.view.rolls
    for one, other in zip(registry.view().rolls, real, strict=True):
        for name in ("adapter_digest", "updates_root", "scores_root", "payout_root", "weight_sum", "seed"):
            assert getattr(one, name) == getattr(other, name), name
