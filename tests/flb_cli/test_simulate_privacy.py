# SPDX-License-Identifier: Apache-2.0
"""A whole run under local privacy in one process: the aggregator admits, combines and verifies noised updates alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from flb.errors import Refused
from flb.spec import decode
from flb_cli.main import main
from tests import tiny_model
from tests.flb_cli.test_simulate import CONFIG, write

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("private")
    tiny_model.build(made / "base")
    write(made)
    return made


def simulate(folder: Path, out: Path, client: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    config = folder / f"{out.name}.yaml"
    config.write_text(CONFIG.replace("client: {held_out: 0.2", f"client: {{held_out: 0.2, {client}"))
    capsys.readouterr()
    code = main(["simulate", "--config", str(config), "--out", str(out), "--json"])
    printed = capsys.readouterr().out
    return code, json.loads(printed) if code == 0 else None


def test_simulate__weak_noise__is_admitted_verified_and_repeats(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters = []
    for name in "ab":
        code, result = simulate(folder, tmp_path / name, "local_dp: true", capsys)
        assert code == 0 and result["rejected"] == 0
        adapters.append(result["adapter_sha256"])
    assert adapters[0] == adapters[1], "noise keys follow from the salt in a simulation"
    assert main(["verify", str(tmp_path / "a"), "--json"]) == 0
    privacy = decode((tmp_path / "a" / "spec.json").read_bytes()).privacy
    assert (privacy.mechanism, privacy.noise_multiplier, privacy.epsilon) == ("local", 0.001, 0.0)
    plain = simulate(folder, tmp_path / "plain", "local_dp: false", capsys)[1]
    assert plain["adapter_sha256"] not in adapters


def test_simulate__a_budget__destroys_the_model_and_is_refused_unless_accepted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = "local_dp: true, target_epsilon: 1"
    assert simulate(folder, tmp_path / "refused", budget, capsys)[0] == Refused.exit_code
    code, result = simulate(folder, tmp_path / "taken", f"{budget}, accept_noise: true", capsys)
    assert code == 0 and result["rejected"] == 0
    assert main(["verify", str(tmp_path / "taken"), "--json"]) == 0
    charges = list((tmp_path / "taken").glob("nodes/*/privacy/*.jsonl"))
    assert len(charges) == 3 and all(len(path.read_text().splitlines()) == 2 for path in charges)


@pytest.mark.parametrize("more", [[], ["--set", "privacy.central=adaptive"]], ids=["fixed", "adaptive"])
def test_simulate__server_privacy__verifies_from_noised_sums_and_repeats(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    config, adapters = folder / "central.yaml", []
    config.write_text(CONFIG)
    for name in "ab":
        arguments = ["--config", str(config), "--out", str(tmp_path / name), "--json", "--use_server_dp", "true"]
        capsys.readouterr()
        assert main(["simulate", *arguments, *more]) == 0
        adapters.append(json.loads(capsys.readouterr().out)["adapter_sha256"])
    assert adapters[0] == adapters[1], "noise keys follow from the salt in a simulation"
    assert main(["verify", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "exact"
    lines = json.loads((tmp_path / "a" / "report.json").read_text())["lines"]
    assert [line["releases"] for line in lines] == [1, 2] and lines[0]["epsilon"] < lines[1]["epsilon"]
