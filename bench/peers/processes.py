# SPDX-License-Identifier: Apache-2.0
"""Real processes over loopback: measured while they run, always ended. Linux only, since it reads /proc."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flb.errors import ChildFailed

ROOT = Path(__file__).resolve().parents[2]
_MARK = "FLB_BENCH_MEMBER"
_SAMPLE_S = 0.2


@dataclass(frozen=True)
class Peak:
    """One process: the name under which it or its ancestor was started, its arguments, its peak resident memory."""

    member: str
    arguments: tuple[str, ...]
    mib: float


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Family:
    """Processes that were started here and all that descend from them, with the peak resident memory of each.

    Peers start workers of their own, in new sessions or orphaned: a variable that they inherit marks them. The peak is
    the kernel's VmHWM, read five times a second, so nothing between two readings is lost, except of a process that
    ends within 0.2 s of its peak.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment, self._token = folder, dict(environment), secrets.token_hex(8)
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._peaks: dict[tuple[int, str], Peak] = {}
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @property
    def peaks(self) -> list[Peak]:
        """Of every process that was seen."""
        return list(self._peaks.values())

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start `command` in a process group of its own; stdout and stderr go to NAME.log in the folder."""
        with self._log(name).open("wb") as log:
            self._started[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=os.environ | self._environment | {_MARK: f"{self._token}:{name}"},
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises ChildFailed if a started process ended with an error."""
        for name, process in self._started.items():
            if process.poll():
                raise ChildFailed(f"{name} ended with code {process.returncode}", self._last_line(name))

    def wait_file(self, path: Path, name: str, timeout_s: float) -> None:
        """Wait until `path` exists; `name` is who has to make it. Raises ChildFailed."""
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            self.check()
            if time.monotonic() > deadline:
                raise ChildFailed(f"{name} had no result after {timeout_s:.0f} s", self._last_line(name))
            time.sleep(0.1)

    def wait_port(self, port: int, name: str, timeout_s: float) -> None:
        """Wait until `port` of the loopback interface accepts connections. Raises ChildFailed."""
        deadline = time.monotonic() + timeout_s
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            self.check()
            if time.monotonic() > deadline:
                raise ChildFailed(f"{name} did not listen after {timeout_s:.0f} s", self._last_line(name))
            time.sleep(0.1)

    def wait_end(self, name: str, timeout_s: float) -> None:
        """Wait until `name` ends by itself. Raises ChildFailed if it fails or does not end."""
        try:
            self._started[name].wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ChildFailed(f"{name} did not end in {timeout_s:.0f} s", self._last_line(name)) from error
        self.check()

    def close(self) -> None:
        """End every process of the family: SIGTERM, after 5 s SIGKILL."""
        self._stop.set()
        self._sampler.join()
        for sign, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            for pid, _ in self._members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            deadline = time.monotonic() + patience_s
            while self._members() and time.monotonic() < deadline:
                for process in self._started.values():
                    process.poll()  # a zombie is gone once it was waited for
                time.sleep(0.05)

    def _members(self) -> list[tuple[int, str]]:
        """Process id and name of every living process that carries the mark."""
        mark, found = f"{_MARK}={self._token}:".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it ended, or it is somebody else's
                    _, marked, rest = (entry / "environ").read_bytes().partition(mark)
                    if marked:
                        found.append((int(entry.name), rest.partition(b"\0")[0].decode()))
        return found

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            for pid, name in self._members():
                folder = Path(f"/proc/{pid}")
                with contextlib.suppress(OSError, IndexError):  # it ends while it is read
                    born = (folder / "stat").read_text().rsplit(")", 1)[1].split()[19]
                    arguments = tuple((folder / "cmdline").read_bytes().decode(errors="replace").split("\0"))
                    kib = int((folder / "status").read_text().split("VmHWM:")[1].split()[0])
                    self._peaks[pid, born] = Peak(name, arguments, kib / 1024)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        words = [line.strip(" │") for line in lines if any(sign.isalnum() for sign in line)]  # not the frame of a box
        return f"its last line was {words[-1]!r}" if words else "it printed nothing"


@contextlib.contextmanager
def family(folder: Path, environment: Mapping[str, str]) -> Iterator[Family]:
    """A family that is ended whatever happens. `environment` is added to this process's own."""
    made = Family(folder, environment)
    try:
        yield made
    finally:
        made.close()


def peer_environment(python: Path) -> dict[str, str]:
    """Variables of every process of a peer: its programs first, this repository importable, one compute thread."""
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
