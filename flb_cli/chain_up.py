# SPDX-License-Identifier: Apache-2.0
"""`flb chain up`: the local chain in the foreground, until a signal ends it."""

import argparse
import json
import os
import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from flb.errors import ChildFailed, NotAllowedHere

PORT = 8545


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    text = "run a local chain on 127.0.0.1 until it is interrupted; it forgets everything when it ends"
    parser = verbs.add_parser("up", help=text, description=text)
    parser.add_argument("--port", type=port, default=PORT, help=f"where it listens, 0 for a free one (default: {PORT})")
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        help="serve other machines there too, through a filter: reads and signed transactions alone (default: nobody)",
    )
    parser.add_argument(
        "--block-ms",
        type=milliseconds,
        metavar="N",
        help="make a block every N milliseconds (default: one for each transaction)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where Hardhat is installed once and the log is written (default: the user's cache folder)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one line of JSON with url, chain_id, pid, and filtered_url with --listen",
    )
    parser.set_defaults(run=run)


def port(text: str) -> int:
    """A port number; 0 stands for any."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: give 0 to 65535")
    return int(text)


def milliseconds(text: str) -> int:
    """A time between blocks."""
    if not text.isdecimal() or not 1 <= int(text) <= 3_600_000:
        raise argparse.ArgumentTypeError(f"{text} is no time between blocks: give 1 to 3600000 milliseconds")
    return int(text)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM, SIGINT and SIGHUP set; a SIGHUP that is ignored, as under nohup, stays so."""
    stop = threading.Event()

    def asked(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, asked)
    return stop


def run(arguments: argparse.Namespace) -> int:
    """Start, say where, wait, stop."""
    stop = stop_on_signals()  # before the slow imports, so that a stop while starting is clean too
    from flb.chain import filter as rpc_filter
    from flb.chain import local
    from flb_cli.cache import cache_folder

    cache = arguments.cache or cache_folder()
    try:
        folder = local.install(cache, lambda text: print(text, file=sys.stderr), stop)
        path = cache / f"chain-{arguments.port}.log"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            log = path.open("wb")
        except OSError as error:
            raise NotAllowedHere(f"{path} cannot be written", "choose another --cache") from error
        with log:
            chain = local.start(folder, log, arguments.port, arguments.block_ms, stop, tied=True)
    except KeyboardInterrupt:
        return 0
    try:
        with rpc_filter.running(arguments.listen, chain.url) if arguments.listen else nullcontext() as filtered:
            if arguments.json:
                said = {"url": chain.url, "chain_id": local.CHAIN_ID, "pid": os.getpid()}
                print(json.dumps(said | ({"filtered_url": filtered} if filtered else {})), flush=True)
            else:
                print(chain.url, flush=True)
                print(f"chain {local.CHAIN_ID}, log in {path}; Ctrl-C ends it", file=sys.stderr, flush=True)
                if filtered:
                    print(f"other machines: {filtered}", file=sys.stderr, flush=True)
            while not stop.wait(0.2):
                if chain.process.poll() is not None:
                    raise ChildFailed("the local chain ended", f"its log is {path}")
    finally:
        chain.stop()
    return 0
