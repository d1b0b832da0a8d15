# SPDX-License-Identifier: Apache-2.0
"""One training through trl: its SFTTrainer or DPOTrainer on the resident model, which is left as it was found."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trl.trainer.utils as trl_utils
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from flb.spec import TrainingSpec

REFERENCE = "ref"
"""The adapter that DPOTrainer adds as a copy of the one to train."""


def make(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    training: TrainingSpec,
    arguments: dict[str, Any],
    callbacks: Sequence[TrainerCallback],
) -> Any:
    """A trainer for `training.objective` on tokenized `rows`.

    DPO compares with the base model without adapter: the reference stays the same over the whole run.
    """
    if training.objective == "dpo":
        first = {"prompt": "a", "chosen": "b", "rejected": "c"}  # trl tokenizes what it is given, in each round anew
        config = DPOConfig(**arguments, beta=training.dpo_beta, max_length=None, disable_dropout=False)
        trainer = DPOTrainer(
            model, args=config, train_dataset=Dataset.from_list([first]), processing_class=tokenizer,
            callbacks=list(callbacks),
        )  # fmt: skip
        trainer.train_dataset = rows
        model.delete_adapter(REFERENCE)  # without it trl switches the adapter off for the reference
    else:
        config = SFTConfig(**arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
        trainer = SFTTrainer(
            model, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=list(callbacks)
        )
    trainer.remove_callback(PrinterCallback)
    # Several visible GPUs would make the trainer copy the model to each; one node trains on one, or splits the layers.
    config._n_gpu = min(config.n_gpu, 1)
    return trainer


def arguments(
    training: TrainingSpec, *, steps: int, seed: int, device: str, scratch: str, checkpointing: bool, packed: bool
) -> dict[str, Any]:
    """What both trainers get; `steps` optimizer steps. trl makes the folder `scratch` even if it saves nothing."""
    return {
        "output_dir": scratch,
        "max_steps": steps,
        "per_device_train_batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "activation_checkpointing": checkpointing,
        "bf16": False,  # no autocast: the base is in its compute type already
        "padding_free": packed,  # the rows of a batch become one, with position ids and without an attention mask
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device.startswith("cuda"),
        "ddp_find_unused_parameters": False,  # counts with several processes alone
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


@contextmanager
def borrowed(model: PeftModel) -> Iterator[None]:
    """Undo and improve what trl does to the model.

    Each trainer wraps `forward` anew and, for checkpointing, hooks the embeddings anew, so the model's own are put
    back. And outside of GPUs trl computes logits for every token, then drops those that the loss ignores: asking it for
    the compact path saves up to a third of a step on a CPU and changes no value.
    """
    inner = model.get_base_model()
    forward = inner.__dict__.get("forward")
    embeddings = model.get_input_embeddings()
    hooks = dict(embeddings._forward_hooks)
    compact = trl_utils._use_triton
    trl_utils._use_triton = lambda device: True
    try:
        yield
    finally:
        trl_utils._use_triton = compact
        if REFERENCE in model.peft_config:
            model.delete_adapter(REFERENCE)
        for key in set(embeddings._forward_hooks) - set(hooks):
            del embeddings._forward_hooks[key]
        if getattr(inner, "is_gradient_checkpointing", False):
            inner.gradient_checkpointing_disable()
        if forward is None:
            inner.__dict__.pop("forward", None)
        else:
            inner.forward = forward
