# SPDX-License-Identifier: Apache-2.0
"""`flb chain deploy` says what a run is warned of before it pays for anything."""

import socket
from pathlib import Path

import pytest

from flb import keystore
from flb.errors import ChainUnavailable
from flb.types import TensorSpec
from flb.wire import container
from flb_cli.main import main

pytestmark = pytest.mark.e2e


def deploy(folder: Path, rate: float) -> int:
    """Exit code of a deployment with this server learning rate of Adam; the chain is dead."""
    for role in ("owner", "aggregator"):
        password = folder / f"{role}.password"
        password.write_text("0123456789abcdef\n")
        password.chmod(0o600)
        keystore.create(folder / f"{role}.json", keystore.read_password(password), b"\x07" * 32, 1000, role)
    (folder / "base").mkdir()
    tensors = [TensorSpec("model.layers.0.self_attn.q_proj.weight", (32, 32))]
    (folder / "base" / "model.safetensors").write_bytes(container.encode_header(tensors, "BF16", {}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        (folder / "config.yaml").write_text(
            "model: {model_path: base}\n"
            f"run: {{server_optimizer: {{name: adam, learning_rate: {rate}}}}}\n"
            "server: {keystore: aggregator.json, password_file: aggregator.password}\n"
            f"chain: {{rpc: 'http://127.0.0.1:{taken.getsockname()[1]}'}}\n"
        )
        command = ["chain", "deploy", "--config", str(folder / "config.yaml"), "--keystore", str(folder / "owner.json")]
        return main([*command, "--password-file", str(folder / "owner.password")])


@pytest.mark.parametrize(("rate", "warnings"), [(1.0, 1), (0.001, 0)])
def test_deploy__adaptive_optimizer__is_warned_of_at_a_rate_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: float, warnings: int
) -> None:
    assert deploy(tmp_path, rate) == ChainUnavailable.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("warning: run.server_optimizer.learning_rate")]) == warnings
    assert not any("Traceback" in line for line in lines)
