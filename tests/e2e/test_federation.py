# SPDX-License-Identifier: Apache-2.0
"""The main job with real processes: it ends, it verifies, it is plain PEFT, and a flipped bit is found."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flb import records
from flb.admission import layout_of
from flb.chain.events import from_json
from flb.roster import fold
from flb.types import Digest, Step
from flb_cli.federation import Federation

pytestmark = pytest.mark.e2e


def verify(*arguments: object) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "flb_cli.main", "verify", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_nodes__end_of_the_run__exit_zero_with_the_last_adapter(finished: Federation) -> None:
    last = finished.view().adapter
    for name in ("node-1", "node-2", "node-3"):
        assert finished.children[name].process.returncode == 0
        folder = finished.folder / name
        assert (folder / "blobs" / last.hex()).exists()
        assert json.loads((folder / "status.json").read_text())["state"] == "finished"
        assert len(list(folder.glob("receipt-*.json"))) == 2
        assert (folder / "secret").stat().st_mode & 0o777 == 0o600


def test_weights__follow_the_datasets(finished: Federation) -> None:
    for roll in finished.view().rolls:
        assert (roll.accepted, roll.weight_sum) == (3, 6 + 7 + 8)


def test_verify__folder_and_address__are_exact(finished: Federation, tmp_path: Path) -> None:
    code, report = verify(finished.folder)
    assert (code, report["verdict"], report["unchecked"], len(report["rounds"])) == (0, "exact", [], 2)
    assert finished.registry is not None and finished.chain is not None
    address = "0x" + finished.registry.domain.run.hex()
    code, report = verify(address, "--rpc", finished.chain.url, "--cache", tmp_path / "cache")
    assert (code, report["verdict"]) == (0, "exact")
    assert not any("no chain answered" in text for text in report["trusted"])


def test_verify__without_a_chain__says_what_it_trusts(finished: Federation) -> None:
    code, report = verify(finished.folder, "--offline")
    assert (code, report["verdict"]) == (0, "exact")
    assert any("events.jsonl" in text for text in report["trusted"])


def test_verify__updates_that_cannot_be_seen__is_partial(finished: Federation, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    view = fold(events_of(folder))
    record = records.decode((folder / "aggregator" / "blobs" / view.rolls[1].record_digest.hex()).read_bytes())
    (folder / "aggregator" / "blobs" / record.closing.admitted[0].manifest.digest.hex()).unlink()
    code, report = verify(folder, "--offline")
    assert (code, report["verdict"]) == (3, "partial")
    assert report["unchecked"] == ["round 2: 1 of 3 updates cannot be seen, not recomputed"]


def copy_of(finished: Federation, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns("node-*", "lock", "*.log")
    shutil.copytree(finished.folder, folder, ignore=ignored)
    return folder


def events_of(folder: Path) -> list[Any]:
    return [from_json(json.loads(line)) for line in (folder / "events.jsonl").read_text().splitlines()]


def flip(path: Path, offset: int, mask: int = 0x40) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.unlink()  # it may be a hard link
    path.write_bytes(data)


def test_verify__one_bit_of_an_update__names_round_node_and_tensor(finished: Federation, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    blobs = folder / "aggregator" / "blobs"
    record = records.decode((blobs / fold(events_of(folder)).rolls[0].record_digest.hex()).read_bytes())
    victim = record.closing.admitted[1]
    spec = spec_of(blobs, folder)
    layout = layout_of(spec, Step(1))
    target = layout.tensors[3]
    entry = layout.parts[3][0]
    item = (entry.end - entry.start) // target.size
    flip(blobs / victim.manifest.digest.hex(), layout.header_size + entry.start + item * 6 - 1)
    code, report = verify(folder, "--offline")
    assert (code, report["verdict"]) == (1, "fail")
    first = report["findings"][0]
    assert (first["round"], first["node"], first["tensor"]) == (1, "0x" + victim.node.hex(), target.name)


def spec_of(blobs: Path, folder: Path) -> Any:
    from flb import spec as specs

    return specs.decode((blobs / fold(events_of(folder)).spec.hex()).read_bytes())


def test_verify__one_bit_of_an_adapter__names_round_and_tensor(finished: Federation, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    blobs = folder / "aggregator" / "blobs"
    flip(blobs / fold(events_of(folder)).rolls[1].adapter_digest.hex(), -1)
    code, report = verify(folder, "--offline")
    last = spec_of(blobs, folder).tensors[-1].name
    assert (code, report["verdict"]) == (1, "fail")
    assert [(f["round"], f["tensor"]) for f in report["findings"]] == [(2, last)]
    assert "published adapter" in report["findings"][0]["what"]


@pytest.mark.parametrize("position", ["weight_sum", "signature", "adapter"])
def test_verify__one_bit_of_a_record__names_the_round(finished: Federation, tmp_path: Path, position: str) -> None:
    folder = copy_of(finished, tmp_path)
    path = folder / "aggregator" / "blobs" / fold(events_of(folder)).rolls[0].record_digest.hex()
    offset = path.read_bytes().index(f'"{position}":'.encode()) + len(position) + 4
    flip(path, offset, mask=0x01)
    code, report = verify(folder, "--offline")
    assert (code, report["verdict"], report["findings"][0]["round"]) == (1, "fail", 1)
    assert "record" in report["findings"][0]["what"]


def test_verify__events_file_with_another_hash__is_found(finished: Federation, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path)
    text = (folder / "events.jsonl").read_text()
    rolled = fold(events_of(folder)).rolls[0]
    (folder / "events.jsonl").write_text(text.replace(rolled.record_hash.hex(), "00" * 32))
    code, report = verify(folder, "--offline")
    assert code == 1 and "record hash on chain" in report["findings"][0]["what"]


def test_verify__nonsense__is_one_sentence(tmp_path: Path) -> None:
    for argument, expected in (("nowhere", 10), (str(tmp_path), 10)):
        command = [sys.executable, "-m", "flb_cli.main", "verify", argument]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == expected and len(done.stderr.strip().splitlines()) == 1


def test_adapter__published_folder__is_plain_peft(finished: Federation) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished.folder / "aggregator" / "adapters" / "step-0002"
    tokenizer = AutoTokenizer.from_pretrained(finished.base)
    model = AutoModelForCausalLM.from_pretrained(finished.base)
    ids = tokenizer("red 1?", return_tensors="pt")
    before = model(**ids).logits
    tuned = PeftModel.from_pretrained(model, str(folder)).eval()
    after = tuned(**ids).logits
    assert before.shape == after.shape and not bool((before == after).all())
    merged = tuned.merge_and_unload()
    assert float((merged(**ids).logits - after).abs().max()) < 1e-4


def test_events__folder__hold_what_the_chain_says(finished: Federation) -> None:
    assert finished.registry is not None
    assert events_of(finished.folder) == finished.registry.events


def test_sigterm__aggregator__exits_zero_in_five_seconds_and_a_late_node_just_fetches(finished: Federation) -> None:
    assert finished.spawn("node-1").process.wait(30) == 0, "a node that comes back after the end goes home"
    process = finished.children["aggregator"].process
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0 and time.monotonic() - start < 5
    finished.spawn("aggregator")
    wait_for_line(finished.folder / "aggregator.log", "serving run", 2)


def wait_for_line(path: Path, text: str, times: int) -> None:
    wait(lambda: path.read_text().count(text) >= times, 30)


def wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_blob_names__are_digests(finished: Federation) -> None:
    import hashlib

    for path in (finished.folder / "aggregator" / "blobs").iterdir():
        assert hashlib.sha256(path.read_bytes()).digest() == Digest(bytes.fromhex(path.name))
