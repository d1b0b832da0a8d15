# SPDX-License-Identifier: Apache-2.0
"""Generate flb/v1 from proto/flb/v1; `--check` only says whether the committed files belong to the sources.

The generator is pinned to one that writes protobuf 6 code, which runs under protobuf 6 and 7. It lives in an
environment of its own (.venv-gen), since it needs an older protobuf than the program runs with. The stamp holds
digests of sources and outputs, so a changed source and an edited output are both seen.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto" / "flb" / "v1"
TARGET = ROOT / "flb" / "v1"
STAMP = TARGET / "STAMP"
GENERATOR = "grpcio-tools==1.76.0"
INIT = '# SPDX-License-Identifier: Apache-2.0\n"""Generated from proto/flb/v1 by `make gen`; never edited."""\n'


def digest(paths: list[Path]) -> str:
    """One digest over names and contents."""
    hashed = hashlib.sha256()
    for path in sorted(paths):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return hashed.hexdigest()


def stamp() -> str:
    """What the stamp must say."""
    sources, outputs = list(SOURCES.glob("*.proto")), [*TARGET.glob("*.py"), *TARGET.glob("*.pyi")]
    return f"{GENERATOR}\nsources {digest(sources)}\noutputs {digest(outputs)}\n"


def generate() -> None:
    """Run the pinned generator."""
    folder = ROOT / ".venv-gen"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", GENERATOR], check=True)
    for old in TARGET.glob("*_pb2*"):
        old.unlink()
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "__init__.py").write_text(INIT)
    files = [str(path.relative_to(ROOT / "proto")) for path in sorted(SOURCES.glob("*.proto"))]
    command = [python, "-m", "grpc_tools.protoc", "-Iproto", "--python_out=.", "--pyi_out=.", "--grpc_python_out=."]
    subprocess.run([*command, *files], cwd=ROOT, check=True)
    STAMP.write_text(stamp())


def main() -> int:
    """Generate or check."""
    if "--check" not in sys.argv[1:]:
        generate()
    elif not STAMP.exists() or STAMP.read_text() != stamp():
        print("flb/v1 does not belong to proto/flb/v1: run `make gen`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
