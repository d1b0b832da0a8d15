# SPDX-License-Identifier: Apache-2.0
"""What `flb demo --kill` and `flb demo --tamper` do to a run, and how they prove what came of it.

`--kill`: the aggregator dies by SIGKILL while an update is half spooled. The file that it leaves is held open here, so
no other file can take its inode: if the admitted blob is that very file, the upload went on where it had stopped.
`--tamper`: one bit of a stored update is flipped, must be found by `flb verify`, and is put back.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flb import records
from flb import spec as specs
from flb.admission import layout_of
from flb.codec import CODINGS
from flb.roster import fold
from flb.types import Digest, Step
from flb_cli.federation import Federation
from flb_cli.replay import Report
from flb_cli.verify import from_folder

LOOK_SECONDS = 0.001
SETTLE_SECONDS = 0.02
"""How long a stopped process may take until it stands still."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Where the aggregator died, and whether the upload went on from there. `byte` and `size` in bytes."""

    round: int
    node: str
    byte: int
    size: int
    went_on: bool


@dataclass(slots=True)
class Ambush:
    """Waits in a thread for a half spooled update and stops the aggregator there; `strike` kills it.

    The window is some milliseconds, so the thread only sends SIGSTOP. An upload that was over by then is let go, and
    the next one is waited for.
    """

    federation: Federation
    say: Callable[[str], None]
    least: int = 0
    """Bytes of the smallest update of this run; fewer are the middle of an upload."""
    stopped: Path | None = None
    """The half spooled file, once the aggregator stands still."""
    held: int = 0
    descriptor: int = -1
    struck: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to wait; the run's spec must be there."""
        spec = specs.decode((self.federation.folder / "aggregator" / "spec.json").read_bytes())
        self.least = min(layout_of(spec, Step(number)).size for number in (1, 2))
        self.thread = threading.Thread(target=self.wait, daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Look at the spool until an upload was caught, or the run is over."""
        spool = self.federation.folder / "aggregator" / "spool"
        while not self.over.wait(LOOK_SECONDS):
            if any(self.caught(path) for path in spooled(spool)):
                return

    def caught(self, path: Path) -> bool:
        """Stop the aggregator if this upload is under way; let it go on if that came too late."""
        process = self.federation.children["aggregator"].process
        try:
            if not 0 < path.stat().st_size < self.least:
                return False
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(SETTLE_SECONDS)
            descriptor = os.open(path, os.O_RDONLY)
            held = os.fstat(descriptor).st_size
            if held < self.least:
                self.descriptor, self.held, self.stopped = descriptor, held, path
                return True
            os.close(descriptor)
        except OSError:  # the update was admitted meanwhile, or the process is gone
            pass
        with_process(process.pid, signal.SIGCONT)
        return False

    def strike(self) -> None:
        """Kill the stopped aggregator and start it again; nothing happens before an upload was caught, or twice."""
        if self.stopped is None or self.struck:
            return
        self.struck = True
        process = self.federation.children["aggregator"].process
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.say(f"killed the aggregator at byte {self.held:,} of an upload; starting it again")
        self.federation.spawn("aggregator")

    def end(self) -> Kill | None:
        """What happened, once the run is over; None if no upload could be caught."""
        self.over.set()
        if self.thread is not None:
            self.thread.join()
        if self.stopped is None:
            return None
        if not self.struck:  # it was caught when nobody needed its upload any more
            with_process(self.federation.children["aggregator"].process.pid, signal.SIGCONT)
            os.close(self.descriptor)
            return None
        number, _, node, digest = self.stopped.name.split("-")
        left = os.fstat(self.descriptor)
        os.close(self.descriptor)
        blob = self.federation.folder / "aggregator" / "blobs" / digest
        went_on = blob.exists() and os.path.samestat(left, blob.stat())
        return Kill(int(number), "0x" + node, self.held, left.st_size, went_on)


def spooled(folder: Path) -> list[Path]:
    """The unfinished uploads; none while there is no folder."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def with_process(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone is left alone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def tamper(folder: Path, verify: Callable[[], Report]) -> dict[str, Any]:
    """Flip one bit of an update of the last round, verify, put it back, verify again.

    `named` says whether a finding named round, node and tensor; `restored` is the verdict at the end.
    """
    target, path = find_target(folder)
    with flipped(path, target.byte):
        findings = verify().findings
    named = any(
        finding.round == target.round
        and finding.node is not None
        and "0x" + finding.node.hex() == target.node
        and finding.tensor == target.tensor
        for finding in findings
    )
    return {
        **asdict(target), "named": named, "findings": [str(finding) for finding in findings],
        "restored": verify().verdict,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """The bit to flip: the highest of the mantissa of the tensor's largest value; `byte` counts from the file's start."""

    round: int
    node: str
    tensor: str
    byte: int


MASK = 0x40
"""In float32 and bfloat16 the highest bit of the mantissa, in mxint8 and mxint4 a bit of the largest
integer: no flip of it makes a NaN, or an integer that no encoder writes."""


def find_target(folder: Path) -> tuple[Target, Path]:
    """A bit of the first update of the last sealed round, and the update's file."""
    material = from_folder(folder, None, False)
    view = fold(material.events)
    rolled = view.rolls[-1]
    blobs = folder / "aggregator" / "blobs"
    spec = specs.decode((blobs / view.spec.hex()).read_bytes())
    admitted = records.decode((blobs / rolled.record_digest.hex()).read_bytes()).closing.admitted[0]
    path = blobs / Digest(admitted.manifest.digest).hex()
    layout = layout_of(spec, view.openings[rolled.round].step)
    index = len(layout.tensors) // 2
    tensor, entries = layout.tensors[index], layout.parts[index]
    blob, coding = memoryview(path.read_bytes()), CODINGS[spec.wire_codec]
    raw = [blob[layout.header_size :][entry.start : entry.end] for entry in entries]
    largest = int(np.argmax(np.abs(coding.decode(raw, np.empty(tensor.size, dtype=np.float32)))))
    part = coding.parts[0]
    start = layout.header_size + entries[0].start + part.item_size * (largest // part.elements)
    byte = start + max(0, part.item_size - 2)
    return Target(rolled.round, "0x" + admitted.node.hex(), tensor.name, byte), path


@contextmanager
def flipped(path: Path, byte: int) -> Iterator[None]:
    """One bit of a file is wrong for the length of a block."""

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(byte)
            value = file.read(1)[0]
            file.seek(byte)
            file.write(bytes([value ^ MASK]))

    flip()
    try:
        yield
    finally:
        flip()
