# SPDX-License-Identifier: Apache-2.0
"""The accountant's child: it answers, refuses in words, and leaves its memory behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from flb import accounting
from flb.errors import ChildFailed, MissingTool, Refused

pytestmark = pytest.mark.e2e


def test_child__sampled_rounds__answers_without_scipy_here() -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    code = (
        "import sys; from flb import accounting; "
        "print(accounting.epsilon_of_rounds(noise_multiplier=1.0, sampling_rate=0.01, rounds=1000, delta=1e-5)); "
        "print('scipy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert float(said[0]) == pytest.approx(1.828, abs=1e-3) and said[1] == "False"


def test_child__library_missing__is_said_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dp_accounting.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingTool, match=r"flb\[dp\]"):
        accounting.epsilon_of_rounds(noise_multiplier=1.0, sampling_rate=0.5, rounds=10, delta=1e-5)


def test_child__broken__is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dp_accounting.py").write_text("raise RuntimeError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ChildFailed, match="no answer"):
        accounting.epsilon_of_rounds(noise_multiplier=1.0, sampling_rate=0.5, rounds=10, delta=1e-5)


@pytest.mark.parametrize("rate", [1.0, 0.0])
def test_accounting__nothing_sampled_or_no_rate__starts_no_child(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    if rate:
        spent = accounting.epsilon_of_rounds(noise_multiplier=1.0, sampling_rate=rate, rounds=1, delta=1e-5)
        assert spent == pytest.approx(4.377, abs=1e-3)
    else:
        with pytest.raises(Refused, match="sampling rate"):
            accounting.epsilon_of_rounds(noise_multiplier=1.0, sampling_rate=rate, rounds=1, delta=1e-5)
