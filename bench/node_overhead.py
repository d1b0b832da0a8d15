# SPDX-License-Identifier: Apache-2.0
"""What a node adds to trl's own training, on the demo's model, text and settings.

    python -m bench.node_overhead [--cache DIR] [--threads T] [--dtype auto|float32|bfloat16] [--repeats N] [--steps S]

A plain SFTTrainer, as trl's manual has it, and the node's `train()` take turns in one process on the same examples.
JSON on stdout; seconds are medians over the repeats. `overhead` is the node's whole call (adapter in, training,
adapter out) against the optimizer steps of the plain trainer, the target is at most 0.05; `around_steps` is what the
node's call adds to its own optimizer steps, whose logits are computed for the completion alone.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from flb import base_model
from flb.lora import adapter_zero, layout
from flb.spec import LoraSpec, TrainingSpec
from flb_cli import demo_base, demo_corpus
from flb_node import data
from flb_node.threads import configure_threads

TARGET = 0.05


def main() -> int:
    """Measure and print; exit code 1 if the target is missed."""
    parser = argparse.ArgumentParser(description="The node's time on top of trl's own.")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "flb", help="where the base model is kept"
    )
    parser.add_argument("--threads", type=int, help="compute threads (default: all cores)")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="JSON is what it prints anyway")
    options = parser.parse_args()
    configure_threads(options.threads, nodes_here=1)
    import numpy as np
    import torch

    from flb_node import trainer

    base = demo_base.ensure(options.cache, lambda text: print(text, file=sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        demo_corpus.write(Path(folder), 3)
        examples = data.read(Path(folder) / "node-1.jsonl")
    modules = layout.resolve(base_model.tensors(base), layout.ALL_LINEAR)
    tensors = layout.adapter_tensors(modules, 8)
    lora = LoraSpec("factors", 8, 16, 0.05, layout.module_names(modules))
    training = TrainingSpec(options.steps, 4, 1e-3, 128, 0)
    adapter = {
        tensor.name: np.concatenate(list(adapter_zero.blocks(tensor, 0))).reshape(tensor.shape) for tensor in tensors
    }

    start = time.perf_counter()
    local = trainer.load(base, lora, tensors, device_map="cpu", dtype=options.dtype, seed=0)
    load_seconds = time.perf_counter() - start
    everything = frozenset(adapter)
    plain, node, node_steps = [], [], []
    for repeat in range(-1, options.repeats):  # the first round warms up and does not count
        plain_seconds = _plain(local, examples, adapter, training, seed=max(repeat, 0))
        done = local.train(examples, adapter, everything, training, max(repeat, 0), lambda *_: None)
        if repeat >= 0:
            plain.append(plain_seconds)
            node.append(done.seconds / options.steps)
            node_steps.append(sum(done.step_seconds) / options.steps)
    plain_step, node_step, own_step = (statistics.median(values) for values in (plain, node, node_steps))
    overhead = node_step / plain_step - 1
    print(
        json.dumps(
            {
                "bench": "node_overhead",
                "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
                "settings": {
                    "model": base.name,
                    "steps": options.steps,
                    "batch": 4,
                    "r": 8,
                    "repeats": options.repeats,
                },
                "dtype": local.dtype,
                "measured_step_s": {name: round(seconds, 3) for name, seconds in local.measured.items()},
                "load_s": round(load_seconds, 2),
                "plain_trl_step_s": round(plain_step, 3),
                "node_call_per_step_s": round(node_step, 3),
                "node_own_step_s": round(own_step, 3),
                "overhead": round(overhead, 4),
                "around_steps": round(node_step / own_step - 1, 4),
                "target": TARGET,
                "ok": overhead <= TARGET,
            },
            indent=2,
        )
    )
    return 0 if overhead <= TARGET else 1


def _plain(local, examples, adapter, training, seed) -> float:  # type: ignore[no-untyped-def]
    """Seconds of one optimizer step of a plain SFTTrainer from the same adapter, its set-up not counted."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Times the optimizer steps."""

        seconds = 0.0
        start = 0.0

        def on_step_begin(self, *_: object, **__: object) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            self.seconds += time.perf_counter() - self.start

    for name, weight in local.weights.items():
        weight.data.copy_(torch.from_numpy(adapter[name]))
        weight.requires_grad_(True)
    rows = [
        {
            "prompt": [{"role": message.role, "content": message.content} for message in example.messages[:-1]],
            "completion": [{"role": "assistant", "content": example.messages[-1].content}],
        }
        for example in examples
    ]
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch,
            max_steps=training.local_steps,
            per_device_train_batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            lr_scheduler_type="constant",
            max_length=training.max_length,
            activation_checkpointing=False,
            bf16=False,
            use_cpu=True,
            seed=seed,
            data_seed=seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        plain = SFTTrainer(
            local.model,
            arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=local.tokenizer,
            callbacks=[clock],
        )
        plain.remove_callback(PrinterCallback)
        plain.train()
    local.model.get_base_model().__dict__.pop("forward", None)
    return float(clock.seconds / training.local_steps)


if __name__ == "__main__":
    sys.exit(main())
