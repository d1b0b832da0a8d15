# SPDX-License-Identifier: Apache-2.0
"""`flb plan`: a verdict and figures from a config and the headers of a base model, and one sentence for what is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.payload import LLAMA_8B, llama_8b_r16
from flb import legality
from flb.admission import layout_of
from flb.config_file import load
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_cli import deploy
from flb_cli.main import main

pytestmark = pytest.mark.unit

PARAMETERS = sum(tensor.size for tensor in llama_8b_r16())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The headers of Llama-3.1-8B's linear layers, without a weight, in `base`."""
    tensors = [
        TensorSpec(f"model.layers.{n}.{name}.weight", shape) for n in range(32) for name, shape in LLAMA_8B.items()
    ]
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(container.encode_header(tensors, "BF16", {}))
    return tmp_path


def config(folder: Path, text: str = "") -> Path:
    """A config.yaml with rank 16 on this base."""
    path = folder / "config.yaml"
    lora = "" if "lora:" in text else "lora: {r: 16}\n"
    path.write_text(f"model: {{model_path: base}}\n{lora}{text}")
    return path


def planned(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `flb plan --json` prints, and its exit code."""
    assert main(["plan", "--config", str(path), "--json", *arguments]) == code
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_plan__legal__has_the_bytes_of_the_layouts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(folder)
    result = planned(path, capsys, "--nodes", "10")
    spec = deploy.draft_spec(load(path))
    assert (result["legal"], result["reasons"], result["parameters"]) == (True, [], PARAMETERS)
    assert result["bytes_up"] == layout_of(spec, Step(1)).size == result["bytes_up_by_codec"]["mxint8"]
    assert result["bytes_down"] == len(container.adapter_header(spec.tensors)) + 4 * PARAMETERS
    assert result["total"]["bytes_up"] == 3 * 10 * result["bytes_up"]
    assert result["total"]["bytes_down"] == 4 * 10 * result["bytes_down"]
    assert result["round_s"] == pytest.approx(sum(result["round_parts_s"].values()), abs=2e-3)
    assert {"aggregator_mib", "quorum", "overflow"} <= set(result)
    assert sorted(entry.name for entry in folder.iterdir()) == ["base", "config.yaml"], "nothing is written"


def test_plan__faster_line__takes_less_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow, fast = (planned(config(folder), capsys, "--mbit", mbit) for mbit in ("10", "1000"))
    assert slow["round_parts_s"]["up"] == pytest.approx(100 * fast["round_parts_s"]["up"], rel=1e-2)


def test_plan__local_privacy__says_what_the_noise_is_worth(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(config(folder), capsys)["privacy"]["mechanism"] == "none"
    text = "client: {local_dp: true, target_epsilon: 8, accept_noise: true}\nrun: {steps: 50, min_nodes: 10}\n"
    made = planned(config(folder, text), capsys)["privacy"]
    assert made["mechanism"] == "local" and made["epsilon"] == pytest.approx(8) and made["delta"] == 1e-5
    assert made["sigma"] / made["clip_norm"] == pytest.approx(8.49, rel=1e-3)
    assert made["noise_to_signal"] == pytest.approx(8.49 * (PARAMETERS / 10) ** 0.5, rel=1e-3)
    assert made["clip_norm"] == pytest.approx(1e-3 * 10 * PARAMETERS**0.5 / 4)


def test_plan__budget_that_drowns_the_signal__is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(folder, "client: {local_dp: true, target_epsilon: 8}\n")
    assert main(["plan", "--config", str(path)]) == 20
    assert "times the signal" in capsys.readouterr().err


def test_plan__table__names_every_figure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", str(config(folder)), "--nodes", "3"]) == 0
    table = capsys.readouterr().out
    assert (
        f"{PARAMETERS:,}" in table
        and "MiB on the aggregator" in table
        and "of 63 bits" in table
        and "without training" in table
    )


def test_plan__illegal__ends_like_a_refusal_and_names_the_nearest_choice(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(folder, "lora: {r: 16, align: true}\nrun: {down: mxint8}\n")
    result = planned(path, capsys, code=20)
    assert not result["legal"] and [reason["code"] for reason in result["reasons"]] == ["product_settings"]
    assert result["nearest"] == ["lora.align: false"]
    assert result["reasons"][0]["remedy"].startswith("set lora.align to false")
    assert main(["plan", "--config", str(path)]) == 20
    assert "illegal: lora.align is true" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "arguments", "code", "words"), [
    ("lora: {target_modules: [q_porj]}\n", (), "refused", "'q_porj' matches no layer of the base model: it has q_proj"),
    ("lora: {r: 0}\n", (), "config", "lora.r is 0"),
    ("lora: {ranks_: [1]}\n", (), "config", "unknown key lora.ranks_"),
    ("", ("--nodes", "0"), "refused", "a run of 0 nodes trains nothing"),
    ("", ("--nodes", "1"), "refused", "1 nodes make no round of run.min_nodes 2"),
    ("", ("--mbit", "0"), "refused", "a line of 0 Mbit/s carries nothing"),
    ("run: {weight_cap: 131072}\n", (), "refused", "choose a weight cap of at most 131071"),
])  # fmt: skip
def test_plan__values_that_no_run_has__are_one_sentence(
    text: str, arguments: tuple[str, ...], code: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code = {"refused": 20, "config": 10}[code]
    result = planned(config(folder, text), capsys, *arguments, code=exit_code)
    assert (result["code"], result["exit_code"]) == (code, exit_code)
    assert words in result["error"] and "\n" not in result["error"]


def test_plan__no_base_model__says_which_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("lora: {r: 8}\n")
    assert "model.model_path is not set" in planned(path, capsys, code=10)["error"]


def test_plan__imported_and_run__needs_neither_torch_nor_a_chain(folder: Path) -> None:
    code = (
        "import sys; from flb_cli.main import main; main(['plan', '--json']);"
        "print(sorted({'torch', 'transformers', 'grpc', 'requests', 'eth_account', 'flb.chain.rpc'} & set(sys.modules)))"
    )
    config(folder)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize(("text", "cohort"), [
    ("", 4096), ("run: {max_cohort: 9}\n", 9), ("lora: {r: 16, mode: product}\n", 255),
    ("lora: {r: 16, mode: stack, max_rank: 480}\n", 10),
])  # fmt: skip
def test_draft_spec__max_cohort_auto__is_what_the_other_settings_allow(text: str, cohort: int, folder: Path) -> None:
    assert deploy.draft_spec(load(config(folder, text))).rounds.max_cohort == cohort


def test_draft_spec__deployed__differs_in_digests_alone(folder: Path) -> None:
    spec = deploy.draft_spec(load(config(folder)))
    assert legality.reasons(spec) == () and spec.tensors == llama_8b_r16()


def test_plan__adaptive_optimizer_at_the_default_rate__is_legal_and_warned_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(folder, "run: {server_optimizer: {name: adam}}\n")
    result = planned(path, capsys)
    assert (result["legal"], [one["code"] for one in result["warnings"]]) == (True, ["adaptive_rate"])
    assert main(["plan", "--config", str(path)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("warning: run.server_optimizer.learning_rate is 1, and adam moves every weight")
    assert planned(config(folder), capsys)["warnings"] == []
