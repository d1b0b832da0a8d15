# SPDX-License-Identifier: Apache-2.0
"""Local training: the base model is loaded once, and each step trains the shared adapter on this node's examples.

trl's SFTTrainer does the training (chat template, loss on the completion alone, fresh AdamW, constant learning rate)
on peft's LoRA; this module puts numpy arrays in and takes numpy arrays out. On a CPU the same seed, adapter, examples
and thread count give the same bits, in any process.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl.trainer.utils as trl_utils
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from flb.delta import Float32
from flb.errors import BadContainer, WrongBaseModel
from flb.spec import LoraSpec, TrainingSpec
from flb.types import TensorSpec
from flb_node import base, compute_dtype, packed_attention, packing, tokens
from flb_node.data import Example
from flb_node.devices import Placement, placement
from flb_node.token_cache import TokenCache

OnStep = Callable[[int, int, float], None]
"""(optimizer step, counted from 1; of how many; its loss). An exception raised in it ends the training."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What one step made. `adapter` holds every tensor, float32, copied; `losses` and `step_seconds` one value for
    each optimizer step; `seconds` is the whole call, in seconds."""

    adapter: dict[str, Float32]
    losses: tuple[float, ...]
    step_seconds: tuple[float, ...]
    seconds: float


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
    cache: TokenCache | None = None
    """Where tokens are kept for the next start."""
    packing: bool = False
    """Whether examples share rows of `max_length` tokens; set before the first training."""
    _dataset: tuple[tuple[Sequence[Example], int], Dataset] | None = None

    def train(
        self,
        examples: Sequence[Example],
        adapter: Mapping[str, Float32],
        trainable: frozenset[str],
        training: TrainingSpec,
        seed: int,
        on_step: OnStep,
    ) -> Trained:
        """Train `training.local_steps` optimizer steps from `adapter`; only tensors named in `trainable` change.

        `seed`, 0 to 2^32 - 1, decides data order and dropout. Raises DatasetError if no example fits
        `training.max_length`, BadContainer if `adapter` has other names or shapes than the run.
        """
        start = time.perf_counter()
        dataset = self._tokenize(examples, training.max_length)
        self._put(adapter, trainable)
        record = _Record(training.local_steps, on_step)
        with tempfile.TemporaryDirectory() as scratch, _trl_patches(self.model):
            trainer = SFTTrainer(
                model=self.model,
                args=_arguments(training, seed, self.device, scratch, self.packing),
                train_dataset=dataset,
                processing_class=self.tokenizer,
                callbacks=[record],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        self.model.eval()
        values = {name: weight.detach().cpu().numpy().copy() for name, weight in self.weights.items()}
        return Trained(values, tuple(record.losses), tuple(record.seconds), time.perf_counter() - start)

    def _tokenize(self, examples: Sequence[Example], max_length: int) -> Dataset:
        key = (examples, max_length)
        if self._dataset is None or self._dataset[0] != key:
            encode_all = tokens.encode_all if self.cache is None else self.cache.encode_all
            rows = encode_all(self.tokenizer, examples, max_length)
            if self.packing:
                packed_attention.check(self.model)
            self._dataset = key, Dataset.from_dict(packing.columns(rows, max_length, self.packing))
        return self._dataset[1]

    def _put(self, adapter: Mapping[str, Float32], trainable: frozenset[str]) -> None:
        if set(adapter) != set(self.weights) or not trainable <= set(self.weights):
            raise BadContainer("the adapter has other tensors than this run", "fetch the adapter that the chain names")
        for name, weight in self.weights.items():
            if adapter[name].shape != tuple(weight.shape):
                raise BadContainer(
                    f"tensor {name} of the adapter has shape {adapter[name].shape}, not {tuple(weight.shape)}",
                    "fetch the adapter that the chain names",
                )
            weight.grad = None
            weight.data.copy_(torch.from_numpy(np.array(adapter[name], dtype=np.float32)))
            weight.requires_grad_(name in trainable)


def load(
    base_dir: Path,
    lora: LoraSpec,
    tensors: tuple[TensorSpec, ...],
    *,
    device_map: str,
    dtype: str = "auto",
    seed: int,
    runs_code: bool = False,
) -> LocalTrainer:
    """Load the base model from `base_dir` and put `lora` on it; `tensors` are the names and shapes of the run spec.

    `dtype` is float32, bfloat16 or auto (one step of each is timed, the faster is kept). `runs_code` is `base.load_model`'s. Raises ModelMissing,
    WrongBaseModel (not loadable, or another shape of adapter than `tensors`), ConfigError for an absent device.
    """
    assert dtype in compute_dtype.CHOICES, f"dtype is {dtype!r}"
    base.use_configured_threads()
    place = placement(device_map, torch.cuda.device_count(), torch.backends.mps.is_available())
    tokenizer = base.load_tokenizer(base_dir, runs_code)
    model, loaded, measured = None, "", {}
    if dtype == "auto":
        options = compute_dtype.candidates(place.device)
        for loaded in options:
            model = _attach(base_dir, loaded, place, lora, seed, runs_code)
            if len(options) > 1:
                measured[loaded] = compute_dtype.step_seconds(model)
        dtype = compute_dtype.choose(measured) if measured else loaded
    if model is None or loaded != dtype:
        model = _attach(base_dir, dtype, place, lora, seed, runs_code)
    weights = _adapter_weights(model)
    _compare(weights, tensors, base_dir)
    gc.collect()
    gc.freeze()  # the model stays for good; walking it in each round's collection takes a quarter of a second
    return LocalTrainer(model, tokenizer, weights, place.device, dtype, measured)


def _attach(base_dir: Path, dtype: str, place: Placement, lora: LoraSpec, seed: int, runs_code: bool) -> PeftModel:
    """The base in `dtype` with a LoRA adapter in float32 (peft casts its input, and its output back)."""
    model = base.load_model(base_dir, getattr(torch, dtype), place, runs_code)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:  # peft found none of the modules
        raise WrongBaseModel(
            f"the base model in {base_dir} has no module named {', '.join(lora.target_modules)}", base.REMEDY
        ) from error


def _adapter_weights(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Parameters of the adapter by their names in peft's files, which leave the adapter's own name out."""
    weights = {}
    for name, weight in model.named_parameters():
        for factor in (".lora_A.", ".lora_B."):
            if factor in name:
                weights[name.replace(f"{factor}default.", factor)] = weight
    return dict(sorted(weights.items()))


def _compare(weights: Mapping[str, torch.nn.Parameter], tensors: Sequence[TensorSpec], base_dir: Path) -> None:
    """Raise WrongBaseModel for the first tensor, by name, that model and run spec don't share."""
    wanted = {tensor.name: tensor.shape for tensor in tensors}
    for name in sorted(set(wanted) | set(weights)):
        here = tuple(weights[name].shape) if name in weights else None
        there = wanted.get(name)
        if here != there:
            raise WrongBaseModel(
                f"the base model in {base_dir} does not fit the run spec: adapter tensor {name} is "
                f"{here or 'absent'} here and {there or 'absent'} there",
                "set model.model_path to the model that the operator named",
            )


def _arguments(training: TrainingSpec, seed: int, device: str, scratch: str, packed: bool) -> SFTConfig:
    arguments = SFTConfig(
        output_dir=scratch,  # trl makes the folder even if it saves nothing
        max_steps=training.local_steps,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        max_length=None,
        padding_free=packed,  # the rows of a batch become one, with position ids and without an attention mask
        dataset_kwargs={"skip_prepare_dataset": True},
        activation_checkpointing=False,
        bf16=False,  # no autocast: the base is in its compute type already
        use_cpu=device == "cpu",
        dataloader_pin_memory=device.startswith("cuda"),
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    # Several visible GPUs would make the trainer copy the model to each; one node trains on one, or splits the layers.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


class _Record(TrainerCallback):  # type: ignore[misc]
    """transformers reports progress to callbacks of this class only."""

    def __init__(self, total: int, on_step: OnStep) -> None:
        self.total, self.on_step = total, on_step
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)

    def on_log(self, _arguments: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.on_step(len(self.losses), self.total, self.losses[-1])


@contextmanager
def _trl_patches(model: PeftModel) -> Any:
    """Undo and improve what SFTTrainer does to the model's forward.

    Each SFTTrainer wraps `forward` anew, so the model's own is put back. And outside of GPUs trl computes logits for
    every token, then drops those that the loss ignores: asking it for the compact path saves up to a third of a step
    on a CPU and changes no value.
    """
    inner = model.get_base_model()
    forward = inner.__dict__.get("forward")
    compact = trl_utils._use_triton
    trl_utils._use_triton = lambda device: True
    try:
        yield
    finally:
        trl_utils._use_triton = compact
        if forward is None:
            inner.__dict__.pop("forward", None)
        else:
            inner.forward = forward
