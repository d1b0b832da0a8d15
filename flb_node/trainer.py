# SPDX-License-Identifier: Apache-2.0
"""Local training: the base model is loaded once, and each step trains the shared adapter on this node's examples.

trl does the training (chat template, loss on the completion alone or on pairs, AdamW) on peft's LoRA; this module puts
numpy arrays in and takes numpy arrays out. On a CPU the same seed, adapter, examples, place in the run and thread count
give the same bits, in any process.
"""

import gc
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerBase

from flb.delta import Float32
from flb.errors import WrongBaseModel
from flb.lora.parts import trained
from flb.lora.shape import alpha_at, at_rank
from flb.privacy.example import Secret
from flb.spec import LoraSpec, TrainingSpec
from flb.types import TensorSpec
from flb_node import (
    adapter_weights,
    base,
    compute_dtype,
    dp_sgd,
    fedprox,
    frozen_part,
    lr_schedule,
    optimizer_state,
    out_of_memory,
    packed_attention,
    packing,
    preference_tokens,
    quantization,
    tokens,
    trl_run,
)
from flb_node.data import Example
from flb_node.devices import Placement, placement
from flb_node.step_watch import OnStep, StepWatch, check_finite
from flb_node.token_cache import TokenCache


@dataclass(frozen=True, slots=True)
class Trained:
    """What one step made. `adapter` holds every tensor that can be trained, float32, copied; `losses` and `step_seconds` one value for
    each optimizer step; `seconds` is the whole call, `start_seconds` its part before the first optimizer step."""

    adapter: dict[str, Float32]
    losses: tuple[float, ...]
    step_seconds: tuple[float, ...]
    seconds: float
    start_seconds: float


@dataclass(slots=True)
class LocalTrainer:
    """The base model with one LoRA adapter. `dtype` is what the base computes in; `measured` says why: seconds of one
    step for each type that was timed, empty if none was."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    weights: dict[str, torch.nn.Parameter]
    """The adapter's parameters by their names in the adapter file."""
    device: str
    dtype: str
    measured: dict[str, float]
    quantization: int | None = None
    checkpointing: bool = False
    cache: TokenCache | None = None
    """Where tokens are kept for the next start."""
    packing: bool = False
    """Whether examples share rows of `max_length` tokens."""
    tokens_a_row: float = 0.0
    """Mean of the prepared rows, as the model sees them: a row of preferences has its prompt twice."""
    _dataset: tuple[tuple[Sequence[Example], str, int], Dataset] | None = None

    def train(
        self,
        examples: Sequence[Example],
        adapter: Mapping[str, Float32],
        trainable: frozenset[str],
        training: TrainingSpec,
        seed: int,
        on_step: OnStep,
        *,
        step: int = 0,
        steps: int = 1,
        kept: Path | None = None,
        secret: Secret | None = None,
    ) -> Trained:
        """Train step `step` (from 0) of the run's `steps` from `adapter`, which may have a frozen part (`flb.lora.parts`);
        only tensors named in `trainable` change.

        `seed`, 0 to 2^32 - 1, decides data order and dropout; `kept` is the folder of the optimizer's state, for a run
        that keeps it; with `secret` each optimizer step is one of DP-SGD. Raises what `prepare` raises, BadContainer if `adapter` has other names or shapes than the run,
        TrainingFailed if the result is worth nothing, OutOfMemory.
        """
        start = time.perf_counter()
        keep = training.optimizer_state == "keep"
        assert kept is not None or not keep, "a run that keeps the optimizer's state needs a folder for it"
        rows = self.prepare(examples, training)
        self._put(adapter, trainable)
        frozen_part.put(self.model, adapter)
        planned = secret.steps.releases if secret else lr_schedule.planned_steps(training, len(rows))
        watch = StepWatch(
            planned,
            on_step,
            lambda local: lr_schedule.learning_rate(training, steps, step, local, planned),
            self.weights,
        )
        before = optimizer_state.read(kept, step) if keep and kept else {}
        if secret is not None:
            optimizer = torch.optim.AdamW(
                [weight for weight in self.weights.values() if weight.requires_grad],
                lr=training.learning_rate,
                weight_decay=0.0,
            )
            optimizer_state.Restore(self.weights, before).on_train_begin(optimizer=optimizer)
            with out_of_memory.explained(self, training):
                dp_sgd.train(self.model, self.weights, rows, training, secret, watch, optimizer)
        else:
            optimizer = self._through_trl(adapter, trainable, rows, training, planned, seed, watch, before)
        self.model.eval()
        values = adapter_weights.read(self.weights)
        check_finite(float(np.max([np.abs(value).max() for value in values.values()])), planned, "adapter")
        if keep and kept:
            optimizer_state.write(kept, step, optimizer_state.taken(optimizer, self.weights, before))
        seconds = time.perf_counter() - start
        return Trained(values, tuple(watch.losses), tuple(watch.seconds), seconds, watch.began - start)

    def _through_trl(
        self,
        adapter: Mapping[str, Float32],
        trainable: frozenset[str],
        rows: Dataset,
        training: TrainingSpec,
        planned: int,
        seed: int,
        watch: StepWatch,
        before: optimizer_state.State,
    ) -> torch.optim.Optimizer:
        """Train without noise; returns the optimizer with its state."""
        with (
            tempfile.TemporaryDirectory() as scratch,
            out_of_memory.explained(self, training),
            trl_run.borrowed(self.model),
            fedprox.pulled(self.weights.values(), training.fedprox_mu),
        ):
            arguments = trl_run.arguments(
                training, steps=planned, seed=seed, device=self.device, scratch=scratch,
                checkpointing=self.checkpointing, packed=self.packing,
            )  # fmt: skip
            callbacks = [watch, *([optimizer_state.Restore(self.weights, before)] if before else [])]
            trainer = trl_run.make(self.model, self.tokenizer, rows, training, arguments, callbacks)
            if self.quantization:
                self._put(adapter, trainable)  # trl has cast the adapter to bfloat16
            trainer.train()
            return trainer.optimizer

    def prepare(self, examples: Sequence[Example], training: TrainingSpec) -> Dataset:
        """The examples as rows of token ids, made at the first call; it sets `tokens_a_row`.

        Raises DatasetError if no example fits `training.max_length`, or one has no rejected answer in a run of DPO, and
        ConfigError for packing with a model that would mix the examples of a row.
        """
        key = (examples, training.objective, training.max_length)
        if self._dataset is None or self._dataset[0] != key:
            columns: dict[str, Any]
            if training.objective == "dpo":
                encode_pairs = preference_tokens.encode_all if self.cache is None else self.cache.encode_pairs
                pairs = encode_pairs(self.tokenizer, examples, training.max_length)
                columns = {name: [pair[name] for pair in pairs] for name in preference_tokens.COLUMNS}
                total = sum(map(len, chain(*columns.values(), columns["prompt_ids"])))
            else:
                encode_all = tokens.encode_all if self.cache is None else self.cache.encode_all
                rows = encode_all(self.tokenizer, examples, training.max_length)
                if self.packing:
                    packed_attention.check(self.model)
                columns = packing.columns(rows, training.max_length, self.packing)
                total = sum(map(len, columns["input_ids"]))
            self._dataset = key, Dataset.from_dict(columns)
            self.tokens_a_row = total / len(self._dataset[1])
        return self._dataset[1]

    def _put(self, adapter: Mapping[str, Float32], trainable: frozenset[str]) -> None:
        adapter_weights.let_train(self.weights, trainable)
        for weight in self.weights.values():
            weight.data = weight.data.float()
        adapter_weights.put(self.weights, trained(adapter))


def load(
    base_dir: Path,
    lora: LoraSpec,
    tensors: tuple[TensorSpec, ...],
    *,
    device_map: str,
    dtype: str = "auto",
    seed: int,
    bits: int | None = None,
    checkpointing: bool = False,
    runs_code: bool = False,
    chat_template: Path | None = None,
    cache: TokenCache | None = None,
    packing: bool = False,
    rank: int | None = None,
) -> LocalTrainer:
    """Load the base model from `base_dir` and put `lora` on it; `tensors` are the names and shapes of the run spec, and
    `rank` is what this node trains at, None for the run's own.

    `dtype` is float32, bfloat16 or auto (one step of each is timed, the faster is kept); `bits` 8, 4 or None quantizes
    the base; `checkpointing` computes activations twice instead of keeping them; `runs_code` is `base.load_model`'s;
    `chat_template` is a file that takes the place of the tokenizer's own; `cache` and `packing` are `LocalTrainer`'s.

    Raises DatasetError for that, ModelMissing, WrongBaseModel (not loadable, or another shape of adapter than
    `tensors`), ConfigError for an absent device, OutOfMemory.
    """
    assert dtype in compute_dtype.CHOICES, f"dtype is {dtype!r}"
    base.use_configured_threads()
    place = placement(device_map, torch.cuda.device_count(), torch.backends.mps.is_available())
    tokenizer = base.load_tokenizer(base_dir, runs_code)
    tokens.use_template(tokenizer, chat_template)
    model, loaded, measured = None, "", {}
    rank = lora.r if rank is None else rank
    tensors = tensors if rank == lora.r else at_rank(tensors, rank)
    if dtype == "auto":
        options = compute_dtype.candidates(place.device)
        for loaded in options:
            model = None  # the one before goes first: two at a time would be the node's peak
            model = _attach(base_dir, loaded, place, lora, rank, seed, bits, runs_code)
            if len(options) > 1:
                measured[loaded] = compute_dtype.step_seconds(model)
        dtype = compute_dtype.choose(measured) if measured else loaded
    if model is None or loaded != dtype:
        model = None
        model = _attach(base_dir, dtype, place, lora, rank, seed, bits, runs_code)
    weights = adapter_weights.weights_of(model)
    remedy = "set model.model_path to the model that the operator named"
    adapter_weights.compare_tensors(weights, tensors, f"the base model in {base_dir}", remedy)
    gc.collect()
    gc.freeze()  # the model stays for good; walking it in each round's collection takes a quarter of a second
    return LocalTrainer(model, tokenizer, weights, place.device, dtype, measured, bits, checkpointing, cache, packing)


def _attach(
    base_dir: Path,
    dtype: str,
    place: Placement,
    lora: LoraSpec,
    rank: int,
    seed: int,
    bits: int | None,
    runs_code: bool,
) -> PeftModel:
    """The base in `dtype` with a LoRA adapter in float32 (peft casts its input, and its output back)."""
    kind = getattr(torch, dtype)
    with out_of_memory.while_loading(bits):
        quantized = quantization.config_of(bits, kind, place.device)
        model = base.load_model(base_dir, kind, place, runs_code, quantized=quantized)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha_at(lora, rank),
        use_rslora=lora.rslora,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        tuned = get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:  # peft found none of the modules
        raise WrongBaseModel(
            f"the base model in {base_dir} has no module named {', '.join(lora.target_modules)}", base.REMEDY
        ) from error
    quantization.keep_unpacked(model)
    return tuned
