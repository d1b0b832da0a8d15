# SPDX-License-Identifier: Apache-2.0
"""The guards of conftest.py hold: run on small test files in a pytest of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
NETWORK = """
import asyncio, socket
from concurrent import futures
import grpc, pytest
pytestmark = pytest.mark.unit
HERE = ("127.0.0.1", 9)
def test_connect(): socket.create_connection(HERE)
def test_connect_ex(): socket.socket().connect_ex(HERE)
def test_bind(): socket.socket().bind(HERE)
def test_listen(): socket.socket().listen()
def test_sendto(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", HERE)
def test_grpc_server(): grpc.server(futures.ThreadPoolExecutor(1))
def test_grpc_channel(): grpc.insecure_channel("127.0.0.1:9")
def test_asyncio_alone_is_fine(): asyncio.run(asyncio.sleep(0))
"""
OTHERS_MAY = (
    "import socket, pytest\n@pytest.mark.e2e\ndef test_bind():\n with socket.socket() as s: s.bind(('127.0.0.1', 0))\n"
)
SKIPS = """
import pytest
pytestmark = pytest.mark.unit
def test_skip(): pytest.skip("no reason")
@pytest.mark.skip(reason="none")
def test_marked(): pass
@pytest.mark.xfail(reason="known")
def test_xfail(): assert False
"""
SKIPPED_FILE = "import pytest\npytestmark = pytest.mark.unit\npytest.importorskip('not_there_at_all')\n"


def run(folder: Path, ci: bool, **files: str) -> tuple[int, str]:
    """Exit code and output of pytest with our conftest.py on these files."""
    (folder / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "300"} | ({"CI": "1"} if ci else {})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_sockets__in_unit_tests__are_refused(tmp_path: Path) -> None:
    code, text = run(tmp_path, False, network=NETWORK, others=OTHERS_MAY)
    assert code == 1 and "7 failed, 2 passed" in text
    assert text.count("- AssertionError: a unit test opens a socket") == 7


def test_skips__outside_ci__are_allowed(tmp_path: Path) -> None:
    code, text = run(tmp_path, False, skips=SKIPS, file=SKIPPED_FILE)
    assert code == 0 and "3 skipped, 1 xfailed" in text


def test_skips__in_ci__are_failures(tmp_path: Path) -> None:
    code, text = run(tmp_path, True, skips=SKIPS, file=SKIPPED_FILE)
    assert code == 1 and "1 failed, 1 xfailed, 2 errors" in text and text.count("skipped in CI") >= 3


@pytest.mark.parametrize("marks", ["", "@pytest.mark.unit\n@pytest.mark.model\n"])
def test_marks__none_or_two__are_refused(tmp_path: Path, marks: str) -> None:
    code, text = run(tmp_path, False, marks=f"import pytest\n{marks}def test_x(): pass\n")
    assert code != 0 and "give it exactly one of" in text
