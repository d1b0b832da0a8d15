# SPDX-License-Identifier: Apache-2.0
"""Run Slither over the contracts without their tests; every finding must stand in tools/slither_findings.json.

    python -m tools.slither

Slither has dependencies of its own that bite the project's, so it gets a virtual environment of its own, .venv-slither,
made the first time. It compiles a copy, since Hardhat's own output may hold older builds. Findings of the level `Informational` and below do not count. A finding that is not listed fails,
and so does one that is listed and not found any more.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-slither"
PACKAGE = "slither-analyzer==0.11.6"
LISTED = ROOT / "tools" / "slither_findings.json"
COUNTED = {"High", "Medium", "Low"}
SECONDS = 600
"""Longer than any run; a run takes half a minute of CPU."""


def install() -> Path:
    """Slither's command, in an environment of its own."""
    command = ENVIRONMENT / "bin" / "slither"
    if not command.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", PACKAGE], check=True)
    return command


def findings(command: Path) -> set[tuple[str, str]]:
    """What Slither says about the contracts: detector, and contract and function."""
    with tempfile.TemporaryDirectory() as folder:
        project, out = Path(folder) / "hardhat", Path(folder) / "out.json"
        shutil.copytree(ROOT / "contracts", project / "contracts", ignore=shutil.ignore_patterns("test"))
        for name in ("hardhat.config.js", "package.json"):
            shutil.copy(ROOT / "hardhat" / name, project)
        (project / "node_modules").symlink_to(ROOT / "hardhat" / "node_modules")
        path = os.pathsep.join((str(ROOT / ".venv" / "bin"), os.environ["PATH"]))
        done = subprocess.run(
            [str(command), ".", "--filter-paths", "node_modules", "--json", str(out)],
            cwd=project, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        if not out.exists() or not (told := json.loads(out.read_text()))["success"]:
            raise SystemExit(f"slither failed: {done.stderr[-2000:]}")
    return {(one["check"], place(one["elements"][0])) for one in told["results"].get("detectors", [])
            if one["impact"] in COUNTED}  # fmt: skip


def place(element: Any) -> str:
    """Contract and function of a finding."""
    parent = element.get("type_specific_fields", {}).get("parent", {})
    return ".".join(name for name in (parent.get("name"), element["name"]) if name)


def main() -> int:
    """Compare what is found with what is listed."""
    listed = {(one["check"], one["place"]) for one in json.loads(LISTED.read_text())}
    found = findings(install())
    for check, where in sorted(found - listed):
        print(f"slither: {check} in {where}: mend it, or list it with its reason in {LISTED.name}", file=sys.stderr)
    for check, where in sorted(listed - found):
        print(f"slither: {check} in {where} is listed and not found any more: strike it out", file=sys.stderr)
    return 1 if found != listed else 0


if __name__ == "__main__":
    raise SystemExit(main())
