# SPDX-License-Identifier: Apache-2.0
"""Every family on a tiny random model of its real architecture: load, train, federate two rounds, merge, generate."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from flb import admission, base_model, planner
from flb import spec as specs
from flb.lora.layout import adapter_tensors, linear_modules, resolve
from flb.store import BlobStore
from flb.types import Address, Digest, Step
from flb_aggregator import pipeline as aggregator
from flb_aggregator.publish import adapter_folder, make_adapter_zero, publish_folder
from flb_cli.model_merge import merge
from flb_node import pipeline as node
from flb_node import trainer
from flb_node.data import Example, Message
from flb_node.trainer import LocalTrainer
from tests import families
from tests.families import FAMILIES, Family
from tests.sim import DOMAIN, manifest_for, members, opening, reader, small_spec

pytestmark = pytest.mark.model

NODES = members(2)
DATA = {
    member.node: tuple(
        Example((Message("user", f"{word} {i}"), Message("assistant", f"{word}, {word} {i + 1}."))) for i in range(8)
    )
    for member, word in zip(NODES, ("ping", "pong"), strict=True)
}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.example)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def base(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.build(family, tmp_path_factory.mktemp(family.example) / "base")


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[specs.RunSpec, BlobStore]:
    """The spec as `flb chain deploy` plans it, and the aggregator's blobs with adapter 0."""
    blobs = BlobStore(tmp_path_factory.mktemp("blobs"))
    names, tensors = planner.plan_tensors(base_model.tensors(base), "all-linear", 4, base_model.model_type(base))
    adapter = make_adapter_zero(tensors, 0, blobs)
    plan = small_spec(codec="mxint8")
    spec = replace(
        plan,
        base=replace(plan.base, name=base.name, digest=base_model.digest(base)),
        lora=specs.LoraSpec("factors", 4, 8, 0.0, names),
        tensors=tensors,
        adapter=adapter.hex(),
        training=replace(plan.training, local_steps=2, batch_size=2, learning_rate=5e-3, max_length=96),
        rounds=replace(plan.rounds, steps=2),
    )
    specs.check(spec)
    return spec, blobs


@pytest.fixture(scope="module")
def local(base: Path, run: tuple[specs.RunSpec, BlobStore]) -> LocalTrainer:
    return trainer.load(base, run[0].lora, run[0].tensors, device_map="cpu", dtype="float32", seed=0)


@pytest.fixture(scope="module")
def made(run: tuple[specs.RunSpec, BlobStore], local: LocalTrainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PEFT folders of two federated rounds, through the pipelines of node and aggregator."""
    spec, blobs = run
    folder = tmp_path_factory.mktemp("federation")
    digest = Digest(bytes.fromhex(spec.adapter))
    for step in (Step(1), Step(2)):
        inputs = []
        opened = opening(count=2, number=step, step=step, base=digest)
        for member in NODES:

            def train(
                adapter: node.Tensors, names: frozenset[str], seed: int, step: Step, who: Address = member.node
            ) -> node.Tensors:
                return local.train(DATA[who], adapter, names, spec.training, seed, lambda *_: None).adapter

            home = folder / member.node.hex()
            home.mkdir(exist_ok=True)
            sealed = node.seal_update(
                spec, step, digest, run=DOMAIN.run, node=member.node, secret=member.node, blobs=blobs, folder=home,
                train=train,
            )  # fmt: skip
            blob = sealed.path.read_bytes()
            admission.check_update(reader(blob), manifest_for(spec, opened, member, blob), spec, step)
            inputs.append(aggregator.Input(len(DATA[member.node]), sealed.path))
        with blobs.writer() as out:
            aggregator.combine(spec, step, blobs.path(digest), inputs, out.write)
            digest = out.commit()
        publish_folder(folder / "adapters", spec, step, blobs, digest)
    return folder / "adapters"


def test_family__architecture_and_modules__are_the_real_ones(family: Family, base: Path) -> None:
    assert base_model.model_type(base) == family.model_type
    names, _ = planner.plan_tensors(base_model.tensors(base), "all-linear", 4, family.model_type)
    assert names == tuple(sorted(family.modules))


def test_family__all_linear__is_what_peft_takes_it_for(family: Family, base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    theirs = {name.replace(".default.", "."): tuple(p.shape) for name, p in tuned.named_parameters() if "lora_" in name}
    modules = linear_modules(base_model.tensors(base), family.model_type)
    assert {tensor.name: tensor.shape for tensor in adapter_tensors(modules, 4)} == theirs


def test_family__one_module_alone__is_the_same_to_node_and_planner(family: Family, base: Path) -> None:
    wanted = (min(family.modules),)
    tensors = adapter_tensors(resolve(base_model.tensors(base), wanted, family.model_type), 2)
    lora = specs.LoraSpec("factors", 2, 4, 0.0, wanted)
    local = trainer.load(base, lora, tensors, device_map="cpu", dtype="float32", seed=0)
    assert sorted(local.weights) == [tensor.name for tensor in tensors]


def test_family__two_federated_rounds__move_the_adapter_in_every_module(
    made: Path, run: tuple[specs.RunSpec, BlobStore]
) -> None:
    from safetensors.numpy import load_file

    first, second = (load_file(adapter_folder(made, Step(step)) / "adapter_model.safetensors") for step in (1, 2))
    assert sorted(second) == [tensor.name for tensor in run[0].tensors]
    for name, value in second.items():
        assert np.isfinite(value).all() and not np.array_equal(value, first[name]), name


def test_family__merged__answers_as_base_with_adapter_and_generates(
    made: Path, base: Path, local: LocalTrainer, family: Family, tmp_path: Path
) -> None:
    adapter, out = adapter_folder(made, Step(2)), tmp_path / "merged"
    how = merge(base, adapter, out)
    assert how["dtype"] == "float32" and how["modules"] == 2 * len(family.modules)
    merged = AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert json.loads((out / "config.json").read_text())["model_type"] == family.model_type
    ids: Any = tokenizer("ping 1", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        plain = AutoModelForCausalLM.from_pretrained(base).eval()(input_ids=ids).logits
        tuned = _tuned(base, adapter)(input_ids=ids).logits
        logits = merged(input_ids=ids).logits
        text = merged.generate(input_ids=ids, max_new_tokens=8, do_sample=False, pad_token_id=2)
    assert torch.allclose(logits, tuned, atol=1e-4) and not torch.allclose(logits, plain, atol=1e-4)
    assert text.shape[1] > ids.shape[1]


def _tuned(base: Path, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
