# SPDX-License-Identifier: Apache-2.0
"""Peak memory of `flb dataset check` for few and for many records: it should stay flat.

    python -m bench.dataset_check [--records 10000 1000000] [--json]

Each check is a process of its own. Memory is the kernel's peak of it, as wait4 tells, which is never below that of this
script, about 20 MiB; seconds are wall time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def write(path: Path, count: int) -> None:
    """`count` different records of about 180 bytes."""
    with path.open("w") as file:
        for number in range(count):
            said = f"It is {number + 1}. " + "So it goes. " * 9
            file.write(json.dumps({"prompt": f"What is {number} plus one?", "completion": said}) + "\n")


def check(path: Path) -> tuple[float, float]:
    """Seconds, and peak resident memory in MiB, of one check."""
    command = [sys.executable, "-m", "flb_cli.main", "dataset", "check", str(path), "--json"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the check of {path.name} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Peak memory of flb dataset check for few and many records.")
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.records:
            path = Path(folder) / f"{count}.jsonl"
            write(path, count)
            seconds, peak = check(path)
            size = path.stat().st_size / (1 << 20)
            found.append(
                {
                    "records": count,
                    "file_mib": round(size, 1),
                    "seconds": round(seconds, 2),
                    "peak_rss_mib": round(peak, 1),
                }
            )
            path.unlink()
    if options.json:
        print(json.dumps({"checks": found}))
    else:
        for line in found:
            print("  ".join(f"{name} {value}" for name, value in line.items()))


if __name__ == "__main__":
    main()
