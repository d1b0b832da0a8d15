# SPDX-License-Identifier: Apache-2.0
"""`flb model export`: the folder is what the chain names, and needs transformers and peft alone."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flb import base_model, planner
from flb import spec as specs
from flb.errors import DigestMismatch, NotAllowedHere, NotListed, Refused
from flb.events import ChainRoundRolled
from flb.lora.peft_config import peft_config
from flb.records import Roll
from flb.store import BlobStore, digest_of_file
from flb.types import ZERO_DIGEST, Round
from flb_aggregator.publish import make_adapter_zero
from flb_cli.model_card import model_card
from flb_cli.model_export import export
from flb_cli.verify import Material
from tests import tiny_model
from tests.sim import DOMAIN, MemoryRegistry, members, small_spec

ALONE = """
import sys

class OnlyPeft:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"flb", "flb_node", "flb_cli", "flb_aggregator"}:
            raise ModuleNotFoundError(f"{name} is not in this environment")

sys.meta_path.insert(0, OnlyPeft())
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
tokenizer = AutoTokenizer.from_pretrained(base)
ids = tokenizer("Hello", return_tensors="pt")["input_ids"]
out = model.generate(input_ids=ids, max_new_tokens=4, do_sample=False, pad_token_id=2)
assert out.shape[1] > ids.shape[1]
assert not [name for name in sys.modules if name.startswith("flb")]
print(sum("lora_A" in name for name, _ in model.named_parameters()), "modules")
"""


def sealed_run(folder: Path, base: Path | None = None, steps: int = 2) -> tuple[specs.RunSpec, Material]:
    """A run with sealed rounds whose adapters are other adapters 0, and what a verifier sees of it."""
    blobs = BlobStore(folder / "blobs")
    spec = small_spec()
    if base is not None:
        names, tensors = planner.plan_tensors(base_model.tensors(base), "all-linear", 2, base_model.model_type(base))
        described = replace(spec.base, name="tiny|`base`: x", digest=base_model.digest(base))
        spec = replace(spec, base=described, lora=replace(spec.lora, target_modules=names), tensors=tensors)
    zero = make_adapter_zero(spec.tensors, 0, blobs)
    spec = replace(spec, adapter=zero.hex())
    blobs.put(spec.encode())
    registry = MemoryRegistry(spec, zero)
    for member in members(2):
        registry.join(member)
    registry.start()
    for number in range(1, steps + 1):
        adapter = make_adapter_zero(spec.tensors, number, blobs)
        roll = Roll(
            Round(number), ZERO_DIGEST, adapter, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, accepted=2, weight_sum=200
        )
        registry.roll(roll)
    fetch = lambda digest: blobs.path(digest) if blobs.has(digest) else None  # noqa: E731
    return spec, Material(registry.events, DOMAIN, fetch, (), None)


@pytest.mark.model
def test_export__folder__loads_where_flb_is_not(tmp_path: Path) -> None:
    base = tiny_model.build(tmp_path / "base")
    spec, material = sealed_run(tmp_path, base)
    export(material, tmp_path / "out", None)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(base), str(tmp_path / "out")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{len(spec.tensors) // 2} modules"


@pytest.mark.unit
def test_export__any_step__is_the_adapter_that_the_chain_names(tmp_path: Path) -> None:
    _, material = sealed_run(tmp_path)
    rolled = [event for event in material.events if isinstance(event, ChainRoundRolled)]
    for step, wanted in ((None, rolled[1]), (1, rolled[0])):
        out = tmp_path / f"out-{step}"
        result = export(material, out, step)
        assert digest_of_file(out / "adapter_model.safetensors") == wanted.adapter_digest
        assert (result["step"], result["round"], result["nodes"]) == (wanted.round, wanted.round, 2)


@pytest.mark.unit
def test_export__card__lists_base_rounds_nodes_digests_contract_and_epsilon(tmp_path: Path) -> None:
    spec, material = sealed_run(tmp_path)
    export(material, tmp_path / "out", None)
    card = (tmp_path / "out" / "README.md").read_text()
    rolled = [event for event in material.events if isinstance(event, ChainRoundRolled)]
    for text in (
        spec.base.name, spec.base.digest, "0x" + DOMAIN.run.hex(), f"chain {DOMAIN.chain_id}", "2 sealed of 3",
        "2 in the run, 2 in the last round", "epsilon | none", specs.digest_of(spec.encode()).hex(),
        *(event.adapter_digest.hex() for event in rolled), *(event.record_digest.hex() for event in rolled),
    ):  # fmt: skip
        assert text in card, text


@pytest.mark.unit
def test_model_card__name_that_would_break_yaml_or_table__stays_a_name(tmp_path: Path) -> None:
    import yaml

    spec, material = sealed_run(tmp_path)
    name = 'a: "b"\n---\n| x `y`'
    spec = replace(spec, base=replace(spec.base, name=name))
    rolled = [event for event in material.events if isinstance(event, ChainRoundRolled)]
    card = model_card(spec, ZERO_DIGEST, DOMAIN, rolled, 2, 7)
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["base_model"] == name
    assert '| base model | `a: "b"--- x y` |' in body
    assert "| LoRA | rank of this adapter 7; the run's: r 2," in body


@pytest.mark.unit
def test_export__base_with_a_repository__card_and_adapter_name_it(tmp_path: Path) -> None:
    spec, material = sealed_run(tmp_path)
    spec = replace(spec, base=replace(spec.base, repo="acme/tiny", revision="0" * 40))
    rolled = [event for event in material.events if isinstance(event, ChainRoundRolled)]
    card = model_card(spec, ZERO_DIGEST, DOMAIN, rolled, 2, 7)
    assert 'base_model: "acme/tiny"' in card and f"| base model | `acme/tiny` at `{'0' * 40}` |" in card
    config = json.loads(peft_config(spec.base, spec.lora, spec.lora.r))
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny", "0" * 40)
    export(material, tmp_path / "out", None)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (small_spec().base.name, None)


@pytest.mark.unit
def test_export__refusals__write_nothing(tmp_path: Path) -> None:
    _, material = sealed_run(tmp_path)
    with pytest.raises(Refused, match="no sealed step 3: choose 1 to 2"):
        export(material, tmp_path / "out", 3)
    with pytest.raises(Refused, match="sealed no round yet"):
        export(sealed_run(tmp_path / "b", steps=0)[1], tmp_path / "out", None)
    with pytest.raises(NotAllowedHere, match="exists"):
        export(material, tmp_path / "blobs", None)
    rolled = [event for event in material.events if isinstance(event, ChainRoundRolled)]
    path = material.fetch(rolled[1].adapter_digest)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DigestMismatch, match="the adapter of step 2 in .* is not the one on chain"):
        export(material, tmp_path / "out", None)
    path.unlink()
    with pytest.raises(NotListed, match="the adapter of step 2 cannot be seen"):
        export(material, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()
