# SPDX-License-Identifier: Apache-2.0
"""Two federated rounds in every mode on a tiny model: the node's own path, admission, the aggregator's combine."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from flb import admission
from flb.delta import Float32
from flb.lora import parts
from flb.spec import LoraSpec, RunSpec
from flb.store import BlobStore
from flb.types import Digest, LoraMode, Member, Step
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import make_adapter_zero, publish_folder
from flb_node import pipeline, trainer
from flb_node.trainer import LocalTrainer
from tests import tiny_model
from tests.flb_node.test_trainer import EXAMPLES, TRAINING, tensors_of
from tests.sim import DOMAIN, manifest_for, members, opening, reader, small_spec

pytestmark = pytest.mark.model

NAMES = ("down_proj", "k_proj", "q_proj")
WEIGHTS = (30, 50, 20)
EXACT = {LoraMode.ALTERNATE, LoraMode.FREEZE_A, LoraMode.STACK}
IDS = torch.arange(3, 43).reshape(2, 20)
Dense = dict[str, np.ndarray]


def products(tensors: Mapping[str, Float32]) -> Dense:
    """B·A of each module, dense, in float64."""
    return {
        name.removesuffix(".lora_A.weight"): tensors[name.replace("_A.", "_B.")].astype(np.float64) @ tensors[name]
        for name in tensors
        if name.endswith(".lora_A.weight")
    }


@dataclass
class Federation:
    """Three nodes, one aggregator, everything on disk."""

    spec: RunSpec
    base: Path
    folder: Path
    ranks: tuple[int, ...]
    models: dict[int, LocalTrainer] = field(default_factory=dict)
    adapters: list[Digest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blobs = BlobStore(self.folder / "blobs")
        for rank in set(self.ranks):
            self.models[rank] = trainer.load(
                self.base, self.spec.lora, self.spec.tensors, device_map="cpu", dtype="float32", seed=0, rank=rank
            )
        self.adapters.append(make_adapter_zero(self.spec.tensors, self.spec.training.seed, self.blobs))

    def adapter(self, number: int = -1) -> dict[str, Float32]:
        return load_file(self.blobs.path(self.adapters[number]))

    def update(self, member: Member, rank: int, weight: int) -> tuple[Input, Dense]:
        """A node's sealed and admitted update, and what its whole model had come to."""
        step, seen = Step(len(self.adapters)), {}

        def train(start: pipeline.Tensors, names: frozenset[str], seed: int, at: Step) -> pipeline.Tensors:
            own = EXAMPLES[weight % 7 :: 2]
            trained = self.models[rank].train(own, start, names, TRAINING, seed, lambda *_: None, step=at - 1, steps=2)
            seen["trained"], seen["frozen"] = trained.adapter, parts.thawed(start)
            return trained.adapter

        folder = self.folder / member.node.hex()
        folder.mkdir(exist_ok=True)
        sealed = pipeline.seal_update(
            self.spec, step, self.adapters[-1], run=DOMAIN.run, node=member.node, secret=member.node, blobs=self.blobs,
            folder=folder, train=train, rank=rank,
        )  # fmt: skip
        blob = sealed.path.read_bytes()
        manifest = manifest_for(self.spec, opening(step=step, base=self.adapters[-1]), member, blob)
        admission.check_update(reader(blob), manifest, self.spec, step)
        assert admission.rank_of_size(self.spec, step, len(blob)) == rank
        dense = products(seen["trained"])
        for path, frozen in products(seen["frozen"]).items():
            dense[path] = dense[path] + frozen
        return Input(weight, sealed.path), dense

    def round(self) -> Dense:
        """One round; the weighted mean of what the nodes' models had come to."""
        made = [
            self.update(member, rank, weight)
            for member, rank, weight in zip(members(3), self.ranks, WEIGHTS, strict=True)
        ]
        with self.blobs.writer() as out:
            base = self.blobs.path(self.adapters[-1])
            combine(self.spec, Step(len(self.adapters)), base, [item for item, _ in made], out.write)
            self.adapters.append(out.commit())
        return {
            path: sum(w / 100 * dense[path] for w, (_, dense) in zip(WEIGHTS, made, strict=True)) for path in made[0][1]
        }

    def logits_of_base_with(self, moved: Dense) -> torch.Tensor:
        """The base with a dense s·W added to its weights."""
        model: Any = AutoModelForCausalLM.from_pretrained(self.base)
        layers = dict(model.named_modules())
        with torch.no_grad():
            for path, dense in moved.items():
                weight = layers[path.removeprefix("base_model.model.")].weight
                weight += torch.from_numpy(dense * self.spec.lora.scale).float()
            return model.eval()(input_ids=IDS).logits

    def logits_of_published(self) -> torch.Tensor:
        """The newest adapter's folder, as peft loads it."""
        folder = publish_folder(
            self.folder / "out", self.spec, Step(len(self.adapters) - 1), self.blobs, self.adapters[-1]
        )
        model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(self.base), folder)
        with torch.no_grad():
            return model.eval()(input_ids=IDS).logits


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


def federation(base: Path, folder: Path, mode: str, ranks: tuple[int, ...] = (4, 4, 4), **more: Any) -> Federation:
    lora = LoraSpec(mode, 4, 6, 0.0, NAMES, ranks=tuple(sorted(set(ranks))) if set(ranks) != {4} else (), **more)
    spec = replace(small_spec(mode, "f32"), lora=lora, tensors=tensors_of(base, lora))
    return Federation(spec, base, folder, ranks)


@pytest.mark.parametrize(("mode", "residual"), [*((mode.value, 0) for mode in LoraMode), ("factors", 16)])
def test_two_rounds__every_mode__make_a_plain_adapter(base: Path, tmp_path: Path, mode: str, residual: int) -> None:
    run = federation(base, tmp_path, mode, max_rank=24, residual_rank=residual)
    for _ in range(2):
        before = run.adapter()
        mean = run.round()
        after, own = run.adapter(), products(run.adapter())
        assert any(not np.array_equal(after[name], before.get(name)) for name in after)
        exact = mode in EXACT or residual  # which holds all that averaging A and B loses
        expected = mean if exact else own
        assert torch.allclose(run.logits_of_published(), run.logits_of_base_with(expected), atol=1e-5)
        if exact:
            for path, dense in mean.items():
                assert np.linalg.norm(own[path] - dense) <= 1e-6 * np.linalg.norm(dense)
    assert not torch.allclose(run.logits_of_published(), run.logits_of_base_with({}), atol=1e-3)


def test_two_rounds__freeze_a__leaves_a_bit_for_bit(base: Path, tmp_path: Path) -> None:
    run = federation(base, tmp_path, "freeze_a")
    run.round(), run.round()
    for name, value in run.adapter(0).items():
        assert (run.adapter()[name].tobytes() == value.tobytes()) == name.endswith(".lora_A.weight")


@pytest.mark.parametrize("mode", ["product", "stack"])
def test_two_rounds__nodes_of_other_ranks__train_and_count(base: Path, tmp_path: Path, mode: str) -> None:
    run = federation(base, tmp_path, mode, ranks=(1, 4, 2), max_rank=24)
    for step in (1, 2):
        mean = run.round()
        if mode == "stack":
            assert next(iter(run.adapter().values())).shape[0] == 7 * step
            assert torch.allclose(run.logits_of_published(), run.logits_of_base_with(mean), atol=1e-5)
        else:
            assert all(4 in value.shape for value in run.adapter().values()), "the adapter keeps the run's rank"
        assert any(not np.array_equal(value, run.adapter(0).get(name)) for name, value in run.adapter().items())
