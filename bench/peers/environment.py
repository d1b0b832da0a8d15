# SPDX-License-Identifier: Apache-2.0
"""A virtual environment for each peer, made once: their pins exclude each other's and FLB's own."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

from flb.errors import MissingTool

TIMEOUT_S = 900.0
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def ensure(cache: Path, name: str, requirements: tuple[str, ...], torch: str = "") -> Path:
    """Python of the environment `name` under `cache`, with exactly `requirements`.

    The stamp is written last and holds all that the environment was made from: a broken or older one is made anew.
    `torch`: version that the peer needs; FLB's own installation is lent through a .pth file if it has that version,
    which spares 1 GB, else it is installed. Raises MissingTool.
    """
    folder, lent = cache / name, _own_torch(torch)
    wanted = [*requirements, f"torch=={torch}"] if torch and lent is None else list(requirements)
    stamp = {"python": sys.version, "requirements": wanted, "lent": str(lent or "")}
    marker, python = folder / "made.json", folder / "bin" / "python"
    if python.exists() and marker.exists() and json.loads(marker.read_text()) == stamp:
        return python
    print(f"making the environment of {name} in {folder} ...", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(name, [sys.executable, "-m", "venv", str(folder)])
    _run(name, [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
    if lent is not None:
        # a .pth comes after the environment's own site-packages: what the peer pins wins
        (folder / "lib" / f"python{_PYTHON}" / "site-packages" / "lent.pth").write_text(f"{lent}\n")
        _run(name, [str(python), "-c", "import torch"])
    marker.write_text(json.dumps(stamp))
    return python


def _own_torch(version: str) -> Path | None:
    """The site-packages of this interpreter if it has torch of `version`."""
    found = importlib.util.find_spec("torch") if version else None
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent.parent
    own = {entry.name.split("-")[1].split("+")[0] for entry in folder.glob("torch-*.dist-info")}
    return folder if version in own else None


def _run(name: str, command: list[str]) -> None:
    """Run one step of making an environment. Raises MissingTool with the last line that the step printed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingTool(f"the environment of {name} could not be made ({error})", "try again") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in said if line.startswith("ERROR")] or said
        raise MissingTool(
            f"the environment of {name} could not be made ({errors[-1] if errors else command[-1]})",
            "check that pip reaches a package index that has these versions",
        )
