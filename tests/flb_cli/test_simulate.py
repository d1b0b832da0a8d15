# SPDX-License-Identifier: Apache-2.0
"""`flb simulate` as it is typed: the same adapter each time, verified, and bad input refused before a model is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from flb_cli.main import main
from flb_cli.simulate import in_words
from tests import tiny_model

CONFIG = """\
model: {model_path: base, device_map: cpu}
dataset_name: data.jsonl
num_clients: 3
chain_record: false
training: {local_steps: 2, batch_size: 2, learning_rate: 5e-3, max_length: 64}
run: {steps: 2}
client: {held_out: 0.2}
"""


def write(folder: Path) -> Path:
    """Config and data; the base model is another's part."""
    rows = [{"prompt": f"What is {i}?", "completion": f"It is {i}.", "topic": "xyz"[i % 3]} for i in range(15)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(CONFIG)
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulate")
    tiny_model.build(folder / "base")
    return write(folder)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Exit code, and the JSON on stdout."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.model
def test_simulate__twice__same_adapter_that_verifies(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = []
    for name in "ab":
        code, result = run(capsys, "simulate", "--config", str(config), "--out", str(tmp_path / name))
        assert code == 0
        results.append(result)
    one, two = results
    assert one["adapter_sha256"] == two["adapter_sha256"] and one["spec"] == two["spec"]
    assert (one["engine"], one["nodes"], one["rounds"], one["attack"], one["rejected"]) == ("serial", 3, 2, None, 0)
    assert one["final_eval_loss"] < one["base_eval_loss"] and one["peak_rss_mib"] > 0
    code, verified = run(capsys, "verify", str(tmp_path / "a"))
    assert (code, verified["verdict"], len(verified["rounds"])) == (0, "exact", 2)
    folder = Path(one["adapter_dir"])
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "adapters", "blobs", "events.jsonl", "nodes", "records", "report.json", "run.json", "spec.json",
    }  # fmt: skip
    assert len(list((tmp_path / "a" / "records").iterdir())) == 2
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert [line["accepted"] for line in report["lines"]] == [3, 3]
    assert all(line["eval_loss"] is not None for line in report["lines"])
    changed = ["--set", "training.seed=1", "--out", str(tmp_path / "c")]
    assert run(capsys, "simulate", "--config", str(config), *changed)[1]["adapter_sha256"] != one["adapter_sha256"]


@pytest.mark.model
@pytest.mark.parametrize(
    ("attack", "more", "rejected"),
    [
        ("label-flip", ["--set", "training.optimizer_state=keep"], 0),
        ("nan", ["--set", "run.min_nodes=1"], 2),
        ("alie", ["--strength", "1"], 0),
    ],
)
def test_simulate__attacked__verifies_and_says_so(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], attack: str, more: list[str], rejected: int
) -> None:
    out = ["--out", str(tmp_path / "run")]
    code, result = run(capsys, "simulate", "--config", str(config), "--attack", attack, *more, *out)
    assert code == 0 and (result["attack"]["name"], result["attack"]["attackers"]) == (attack, 1)
    assert result["rejected"] == rejected
    assert run(capsys, "verify", str(tmp_path / "run"))[1]["verdict"] == "exact"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "num_clients=null"], "config", "num_clients is not set"),
        (["--set", "num_clients=13"], "refused", "12 records do not reach 13 nodes"),
        (["--attack", "krum"], "refused", "the attack 'krum' is unknown"),
        (["--attack", "alie", "--attackers", "3"], "config", "--attackers is 3, and the run has 3 nodes"),
        (["--attack", "gauge", "--set", "lora.mode=alternate"], "refused", "mode alternate sends one"),
        (["--attack", "gauge", "--strength", "0"], "config", "the attack gauge has the strength 0"),
        (["--set", "chain_record=true"], "config", "records on no chain"),
        (["--set", "partition.way=by_column", "--set", "partition.column=topic", "--set", "num_clients=4"],
         "refused", "3 values, too few for 4 nodes"),
        (["--set", "model.model_path=absent"], "model-missing", "absent"),
        (["--out", "."], "config", "is not an empty folder"),
    ],
)  # fmt: skip
def test_simulate__bad_input__one_sentence_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str],
    code: str, words: str,
) -> None:  # fmt: skip
    path = write(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"not read")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    exit_code, told = run(capsys, "simulate", "--config", str(path), *arguments)
    assert exit_code == told["exit_code"] and told["code"] == code and words in told["error"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.model
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "lora.target_modules=[nothing]"], "matches no layer"),
        (["--set", "training.objective=dpo"], "has no rejected answer"),
    ],
)
def test_simulate__run_that_cannot_be__leaves_no_folder(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    out = tmp_path / "run"
    code, told = run(capsys, "simulate", "--config", str(config), "--out", str(out), *arguments)
    assert code == told["exit_code"] != 0 and words in told["error"] and not out.exists()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("strength", "line"),
    [(1.5, "  attack     alie, 2 nodes, strength 1.5"), (None, "  attack     alie, 2 nodes")],
)
def test_in_words__attack__is_told_with_its_strength(strength: float | None, line: str) -> None:
    result = {
        "nodes": 5, "rounds": 3, "wall_s": 1.25, "rejected": 2, "base_eval_loss": 2.0, "final_eval_loss": 1.0,
        "adapter_dir": "a", "folder": "f", "attack": {"name": "alie", "attackers": 2, "strength": strength},
    }  # fmt: skip
    told = in_words(result).splitlines()
    assert told[0] == "5 nodes, 3 rounds, 1.2 s" and line in told and "  rejected   2 updates" in told
    assert len(in_words({**result, "attack": None, "rejected": 0, "final_eval_loss": None}).splitlines()) == 3
