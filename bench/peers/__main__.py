# SPDX-License-Identifier: Apache-2.0
"""Flower and NVFlare carry the adapter of Llama-3.1-8B: broadcast to N nodes, receive from each, average; no training.

    python -m bench.peers [--nodes N] [--mib M] [--rounds R] [--only flower|nvflare] [--with-flb] [--json]

Each peer runs as real processes over loopback, without TLS, in a virtual environment that is made once in the cache.
`--with-flb` measures FLB with `bench.transfer` first. Prints a table with ratios to the first row, or JSON.
"""

import argparse
import json
import os
import platform
import signal
import sys
from pathlib import Path

from bench.peers import flower, nvflare, transfer
from bench.peers.payload import FULL_MIB, payload_mib
from bench.peers.table import table
from flb.errors import FLBError
from flb_cli.cache import cache_folder

_PEERS = {"flower": flower.run, "nvflare": nvflare.run}


def main() -> int:
    """Measure and print; the exit code is the error's if one stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--mib", type=int, default=FULL_MIB, help="size of an update; in steps of 5")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count; one more warms up")
    parser.add_argument("--only", choices=sorted(_PEERS))
    parser.add_argument("--with-flb", action="store_true", help="run bench.transfer too")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds for all rounds of one system")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "peers", help="where the environments are kept")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if min(options.nodes, options.mib, options.rounds) < 1:
        parser.error("--nodes, --mib and --rounds are at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that every child is ended
    results: dict[str, object] = {
        "nodes": options.nodes,
        "payload_mib": round(payload_mib(options.mib), 2),
        "machine": _machine(),
    }
    try:
        if options.with_flb:
            results["flb"] = transfer.run(options.nodes, options.mib, options.rounds, options.timeout)
        for name, run in _PEERS.items():
            if options.only in (None, name):
                print(f"{name}: {options.rounds} rounds and one before ...", file=sys.stderr, flush=True)
                cache = options.cache.expanduser().absolute()
                results[name] = run(cache, options.nodes, options.mib, options.rounds + 1, options.timeout)
    except FLBError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(results, indent=2) if options.json else table(results))
    return 0


def _machine() -> dict[str, object]:
    """What the figures depend on, and how busy the machine was before."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    sys.exit(main())
