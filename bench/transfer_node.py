# SPDX-License-Identifier: Apache-2.0
"""A node of `bench.transfer`: the product's uplink and store, with a prepared update in the place of training.

It is told over stdin what a real node reads from the chain, and answers with one JSON line a step.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flb import identity
from flb import spec as specs
from flb.admission import in_file_order, layout_of, update_metadata
from flb.codec import CODINGS, dither
from flb.errors import Busy
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Manifest, Round, Step
from flb.wire import container
from flb_aggregator.metrics import peak_rss_mib
from flb_node.channel import Endpoint
from flb_node.faults import pause_after
from flb_node.uplink import Uplink


def main() -> None:
    """Read orders until stdin closes."""
    note = json.loads(sys.stdin.readline())
    folder, key = Path(note["folder"]), bytes.fromhex(note["key"])
    folder.mkdir(parents=True)
    raw: dict[str, bytes] = {name: bytes.fromhex(note[name]) for name in ("run", "aggregator", "spec", "dataset")}
    domain, node = Domain(note["chain_id"], Address(raw["run"])), identity.address_of(key)
    blobs = BlobStore(folder / "blobs")
    endpoint = Endpoint(note["uri"], Digest(bytes.fromhex(note["cert_digest"])))
    uplink = Uplink(endpoint, domain, lambda: Address(raw["aggregator"]), node, key)
    spec = specs.decode(uplink.get_run(Digest(raw["spec"])))
    values = Path(note["values"])
    say("ready")
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        opened = {name: bytes.fromhex(order[name]) for name in ("seed", "base")}
        if order["do"] == "seal":
            patiently(partial(uplink.download, Digest(opened["base"]), blobs))
            digest = seal(
                spec, Step(order["step"]), update_metadata(opened["seed"], node, opened["base"]), values, blobs
            )
            size = blobs.path(digest).stat().st_size
            say("sealed", mib=size / (1 << 20))
        elif order["do"] == "upload":
            manifest = Manifest(
                node=node, round=Round(order["round"]), seed=Digest(opened["seed"]), spec=Digest(raw["spec"]),
                base=Digest(opened["base"]), digest=digest, tensor_root=ZERO_DIGEST, dataset_root=Digest(raw["dataset"]),
                size=size, examples=100, codec=spec.wire_codec,
            )  # fmt: skip
            signature = identity.sign(key, domain, identity.manifest_hash(manifest))
            start = time.perf_counter()
            patiently(partial(uplink.deliver, manifest, signature, blobs.path(digest), quiet))
            say("uploaded", seconds=time.perf_counter() - start)
        else:
            start = time.perf_counter()
            for state in uplink.watch():
                if state.round > order["round"]:
                    break
            announced = time.perf_counter()
            for old in (digest, Digest(opened["base"])):  # as the bare reference deletes its own before
                blobs.path(old).unlink()
            patiently(partial(uplink.download, Digest(state.base), blobs))
            say("downloaded", waited=announced - start, seconds=time.perf_counter() - announced)
    uplink.close()


def patiently(call: Callable[[], object]) -> None:
    """Call again when the aggregator says so, as the product's node does."""
    while True:
        try:
            call()
            return
        except Busy as busy:
            time.sleep(pause_after(busy))


def quiet(done: int, size: int) -> None:
    """Progress that nobody looks at."""


def seal(spec: RunSpec, step: Step, metadata: dict[str, str], values: Path, blobs: BlobStore) -> Digest:
    """A legal update of the flat values in a file, as a node would have sealed it."""
    layout, coding = layout_of(spec, step), CODINGS[spec.wire_codec]
    draw = dither.stream(bytes(32))
    with blobs.writer() as out, values.open("rb") as source:
        out.write(container.header_of(layout.entries, metadata))
        for part in in_file_order(layout, lambda t: coding.encode(np.fromfile(source, np.float32, t.size), draw)):
            out.write(part)
        return out.commit()


def say(what: str, **figures: float) -> None:
    """One line to the driver."""
    print(json.dumps({"did": what, "peak_rss_mib": peak_rss_mib(), **figures}), flush=True)


if __name__ == "__main__":
    main()
