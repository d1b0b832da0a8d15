# SPDX-License-Identifier: Apache-2.0
"""Line coverage of the contracts by the Solidity tests; fails below 99 %.

    python -m tools.solidity_coverage

Tests of gas stay out: coverage instruments the code, which then costs more.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HARDHAT = ROOT / "hardhat"
LEAST = 0.99
"""Part of the lines that a test must reach."""
SECONDS = 1_200
"""Longer than any run; a run takes about two minutes of CPU."""


def measure() -> str:
    """Run the tests; returns the report in lcov's format. Raises SystemExit where a test fails."""
    report = HARDHAT / "coverage" / "lcov.info"
    report.unlink(missing_ok=True)
    tests = sorted(path for path in (ROOT / "contracts" / "test").glob("*.t.sol") if path.name != "FLBRunGas.t.sol")
    done = subprocess.run(
        ["node", "node_modules/hardhat/dist/src/cli.js", "test", "solidity",
         *(f"contracts/test/{path.name}" for path in tests), "--coverage"],
        cwd=HARDHAT, env={**os.environ, "PATH": os.pathsep.join((str(ROOT / ".venv" / "bin"), os.environ["PATH"]))},
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0 or not report.exists():
        raise SystemExit(f"the Solidity tests failed: {(done.stdout + done.stderr)[-3000:]}")
    return report.read_text()


def missed(report: str) -> tuple[int, list[str]]:
    """Number of lines that count, and those among them that no test reached, as file:line."""
    lines, never, file = 0, [], ""
    for line in report.splitlines():
        key, _, value = line.partition(":")
        if key == "SF":
            file = value
        elif key == "DA" and not file.startswith("contracts/test/"):
            number, hits = value.split(",")[:2]
            lines += 1
            if hits == "0":
                never.append(f"{file}:{number}")
    return lines, never


def main() -> int:
    """Print the figure, and the lines that are missing."""
    lines, never = missed(measure())
    part = 1 - len(never) / lines if lines else 0.0
    print(f"{part:.2%} of {lines} lines of the contracts are covered", *never, sep="\n  ")
    if part < LEAST:
        print(f"that is below {LEAST:.0%}: test the lines named", file=sys.stderr)
    return 1 if part < LEAST else 0


if __name__ == "__main__":
    raise SystemExit(main())
