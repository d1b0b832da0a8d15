# SPDX-License-Identifier: Apache-2.0
"""What is installed is complete: the wheel holds all that runs from it, the source archive nothing that was made."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flb", "flb_node", "flb_aggregator", "flb_cli")
CHAIN = "flb/chain/hardhat"


def build(kind: str, folder: Path) -> Path:
    """Build one archive with the environment's own hatchling, without the network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


def test_wheel__contents__are_all_that_runs_from_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
        (entry,) = (name for name in names if name.endswith("/entry_points.txt"))
        scripts = wheel.read(entry).decode()
    wanted = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py*")}
    wanted = {name for name in wanted if "__pycache__" not in name} | {f"{package}/py.typed" for package in PACKAGES}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "flb/chain/abi").glob("*.json")}
    wanted |= {f"{CHAIN}/{name}" for name in ("package.json", "package-lock.json", "hardhat.config.js", ".npmrc")}
    wanted |= {f"{CHAIN}/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "contracts").rglob("*.sol")}
    assert wanted <= names
    outside = {name for name in names if name.split("/")[0] not in PACKAGES and ".dist-info/" not in name}
    assert not outside and not any("node_modules" in name for name in names)
    for command, target in (("flb", "flb_cli.main"), ("flb-node", "flb_node.__main__"),
                            ("flb-aggregator", "flb_aggregator.__main__")):  # fmt: skip
        assert f"{command} = {target}:main\n" in scripts


def test_source_archive__contents__are_sources_alone(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "hardhat/package-lock.json", "contracts/FLBRun.sol", "Makefile"} <= names
    made = (
        "hardhat/node_modules",
        "hardhat/artifacts",
        "hardhat/cache",
        "hardhat/coverage",
        "tests/js/node_modules",
        ".venv",
    )
    assert not [name for name in names if name.startswith(made)]
