# SPDX-License-Identifier: Apache-2.0
"""Export what Hardhat compiled to flb/chain/abi, one sorted JSON a contract; `--check` only compares.

Python and the wheel work from these files, so Node is needed only to change contracts or to run the local chain.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT / "hardhat" / "artifacts"
TARGET = ROOT / "flb" / "chain" / "abi"
CONTRACTS = ("FLBFactory", "FLBRun")


def export(name: str) -> str:
    """The text of one exported file."""
    artifact = json.loads((ARTIFACTS / "contracts" / f"{name}.sol" / f"{name}.json").read_text())
    info = json.loads((ARTIFACTS / "build-info" / f"{artifact['buildInfoId']}.json").read_text())
    settings = info["input"]["settings"]
    kept = {key: settings.get(key) for key in ("evmVersion", "metadata", "optimizer", "viaIR")}
    out = {
        "contractName": name,
        "abi": artifact["abi"],
        "bytecode": artifact["bytecode"],
        "deployedBytecode": artifact["deployedBytecode"],
        "compiler": {"version": info["solcLongVersion"], "settings": kept},
    }
    return json.dumps(out, sort_keys=True, separators=(",", ":")) + "\n"


def main() -> int:
    """Write the files, or compare them with what was compiled."""
    if not (ARTIFACTS / "contracts").is_dir():
        print("the contracts are not compiled: run `make gen`", file=sys.stderr)
        return 1
    stale = []
    for name in CONTRACTS:
        path, text = TARGET / f"{name}.json", export(name)
        if "--check" in sys.argv[1:]:
            stale += [] if path.exists() and path.read_text() == text else [path.name]
        else:
            TARGET.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"{', '.join(stale)} in flb/chain/abi differ from the contracts: run `make gen`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
