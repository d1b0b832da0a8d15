# SPDX-License-Identifier: Apache-2.0
"""Export what Hardhat compiled to flb/chain/abi, one sorted JSON a contract; `--check` only compares.

Python and the wheel work from these files, so Node is needed only to change contracts or to run the local chain.
"""

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT / "hardhat" / "artifacts"
TARGET = ROOT / "flb" / "chain" / "abi"
CONTRACTS = {"FLBFactory": "", "FLBRun": "", "FLBToken": "token/"}
"""Names, each with its folder below contracts/."""


class NotCompiledError(Exception):
    """Hardhat's output is missing, or older than the sources."""


def compiled(name: str) -> tuple[Any, Any]:
    """Hardhat's artifact of a contract and what it was built from. Raises NotCompiledError."""
    try:
        source = f"contracts/{CONTRACTS[name]}{name}.sol"
        artifact = json.loads((ARTIFACTS / source / f"{name}.json").read_text())
        info = json.loads((ARTIFACTS / "build-info" / f"{artifact['buildInfoId']}.json").read_text())
        sources, pending, seen = info["input"]["sources"], [f"project/{source}"], set()
        while pending:  # the contract and what it imports from this repository: a build may hold other sources too
            path = pending.pop()
            text = sources[path]["content"]
            if (ROOT / path.removeprefix("project/")).read_text() != text:
                raise NotCompiledError
            seen.add(path)
            imported = re.findall(r'from "(\.[^"]+)";', text)
            pending += {posixpath.normpath(f"{path}/../{found}") for found in imported} - seen
    except FileNotFoundError:
        raise NotCompiledError from None
    return artifact, info


def export(name: str) -> str:
    """The text of one exported file. Raises NotCompiledError."""
    artifact, info = compiled(name)
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
    try:
        texts = {TARGET / f"{name}.json": export(name) for name in CONTRACTS}
    except NotCompiledError:
        print("the contracts are not compiled as they are now: run `make gen`", file=sys.stderr)
        return 1
    if "--check" not in sys.argv[1:]:
        TARGET.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text)
        return 0
    stale = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
    if stale:
        print(f"{', '.join(stale)} in flb/chain/abi differ from the contracts: run `make gen`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
