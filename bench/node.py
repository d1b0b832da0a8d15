# SPDX-License-Identifier: Apache-2.0
"""What a node takes next to a bare trl SFTTrainer, on the demo's model, text and settings: time, start, memory.

    python -m bench.node [--json] [--cache DIR | --base DIR] [--threads T] [--dtype float32|bfloat16] [--repeats N]
        [--steps S]

A plain SFTTrainer, as trl's manual has it, and the node's `train()` take turns in one process on the same examples,
and change who begins; figures are medians over the repeats. Memory is the kernel's peak of a process of its own for
each. JSON on stdout: `overhead` is the node's optimizer step against the plain trainer's (target at most 0.02),
`around_steps` what the node's whole call adds to its own steps, `tokens_ratio` tokens per second of a round against
those of a plain run, set-up and all (target at least 0.95), `round_start_s` from the call with a later round's adapter
to the first optimizer step (target at most 1 s), `memory_ratio` node to plain (target at most 1.1).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flb import base_model
from flb.lora import adapter_zero, layout
from flb.spec import LoraSpec, TrainingSpec
from flb_aggregator.metrics import peak_rss_mib
from flb_cli import demo_base, demo_corpus
from flb_cli.cache import cache_folder
from flb_node import data
from flb_node.threads import configure_threads

TARGETS = {"overhead": 0.02, "tokens_ratio": 0.95, "round_start_s": 1.0, "memory_ratio": 1.1}


@dataclass
class Task:
    """What both sides train: the same model folder, examples, adapter and settings."""

    base: Path
    examples: tuple[data.Example, ...]
    lora: LoraSpec
    tensors: tuple[Any, ...]
    training: TrainingSpec
    dtype: str

    def adapter(self) -> dict[str, Any]:
        """Adapter 0."""
        import numpy as np

        return {
            tensor.name: np.concatenate(list(adapter_zero.blocks(tensor, 0))).reshape(tensor.shape)
            for tensor in self.tensors
        }

    def load(self) -> Any:
        """The node's trainer with the base model in memory."""
        from flb_node import trainer

        return trainer.load(self.base, self.lora, self.tensors, device_map="cpu", dtype=self.dtype, seed=0)


def main() -> int:
    """Measure and print; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="The node's time and memory next to trl's own.")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where the base model is kept")
    parser.add_argument("--base", type=Path, help="folder of another base model")
    parser.add_argument("--threads", type=int, help="compute threads (default: all cores)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--cpu", action="store_true", help="count this process's CPU time: for a machine in use")
    parser.add_argument("--memory", choices=("trl", "flb"), help="only print the peak memory of one side, in MiB")
    parser.add_argument("--json", action="store_true", help="JSON is what it prints anyway")
    options = parser.parse_args()
    configure_threads(options.threads, nodes_here=1)
    if options.cpu:
        time.perf_counter = time.process_time
    task = _task(options)
    if options.memory:
        print(_peak_mib(task, options.memory))
        return 0
    found = _times(task, options.repeats)
    peaks = {side: _peak_of_child(side) for side in ("trl", "flb")}
    found |= {
        "peak_rss_mib": peaks["flb"],
        "trl_peak_rss_mib": peaks["trl"],
        "memory_ratio": round(peaks["flb"] / peaks["trl"], 3),
    }
    missed = [
        name for name, target in TARGETS.items() if (found[name] < target if "tokens" in name else found[name] > target)
    ]
    import torch

    about = {
        "bench": "node",
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "settings": {
            "model": task.base.name,
            "dtype": task.dtype,
            "steps": options.steps,
            "repeats": options.repeats,
            "clock": "cpu" if options.cpu else "wall",
        },
    }
    print(json.dumps({**about, **found, "targets": TARGETS, "missed": missed, "ok": not missed}, indent=2))
    return 1 if missed else 0


def _task(options: argparse.Namespace) -> Task:
    base = options.base or demo_base.ensure(options.cache, lambda text: print(text, file=sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        demo_corpus.write(Path(folder), 3)
        examples = data.read(Path(folder) / "node-1.jsonl")
    modules = layout.resolve(base_model.tensors(base), layout.ALL_LINEAR)
    lora = LoraSpec("factors", 8, 16, 0.05, layout.module_names(modules))
    training = TrainingSpec(options.steps, 4, 1e-3, 128, 0)
    return Task(base, examples, lora, layout.adapter_tensors(modules, 8), training, options.dtype)


def _times(task: Task, repeats: int) -> dict[str, Any]:
    """Medians over alternating runs; the first pair warms up and does not count."""
    local, adapter, steps = task.load(), task.adapter(), task.training.local_steps
    plain, whole, node = [], [], []
    for repeat in range(-1, repeats):
        seed = max(repeat, 0)
        for side in ("trl", "flb") if repeat % 2 else ("flb", "trl"):
            if side == "trl":
                measured = _plain(local.model, local.tokenizer, local.weights, task, adapter, seed)
            else:
                done = local.train(task.examples, adapter, frozenset(adapter), task.training, seed, lambda *_: None)
        if repeat >= 0:
            plain.append(measured[0])
            whole.append(measured[1])
            node.append(done)
    middle = statistics.median
    trl_step = middle(plain)
    flb_step = middle(sum(done.step_seconds) / steps for done in node)
    call = middle(done.seconds / steps for done in node)
    return {
        "trl_step_s": round(trl_step, 4),
        "flb_step_s": round(flb_step, 4),
        "overhead": round(flb_step / trl_step - 1, 4),
        "around_steps": round(call / flb_step - 1, 4),
        "call_against_trl_steps": round(call / trl_step - 1, 4),
        "tokens_ratio": round(middle(whole) / (call * steps), 3),
        "round_start_s": round(middle(done.start_seconds for done in node), 3),
    }


def _plain(model: Any, tokenizer: Any, weights: Any, task: Task, adapter: Any, seed: int) -> tuple[float, float]:
    """Seconds of one optimizer step of a plain SFTTrainer, and of the whole run with its set-up."""
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

    for name, weight in weights.items():
        weight.data.copy_(torch.from_numpy(adapter[name]))
        weight.requires_grad_(True)
    rows = [
        {
            "prompt": [{"role": message.role, "content": message.content} for message in example.messages[:-1]],
            "completion": [{"role": "assistant", "content": example.messages[-1].content}],
        }
        for example in task.examples
    ]
    clock, begun = Clock(), time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch, max_steps=task.training.local_steps,
            per_device_train_batch_size=task.training.batch_size, learning_rate=task.training.learning_rate,
            lr_scheduler_type="constant", max_length=task.training.max_length, activation_checkpointing=False,
            bf16=False, use_cpu=True, seed=seed, data_seed=seed, logging_steps=1, save_strategy="no",
            report_to="none", disable_tqdm=True,
        )  # fmt: skip
        plain = SFTTrainer(
            model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock]
        )
        plain.remove_callback(PrinterCallback)
        plain.train()
    model.get_base_model().__dict__.pop("forward", None)
    return clock.seconds / task.training.local_steps, time.perf_counter() - begun


def _peak_mib(task: Task, side: str) -> float:
    """Peak memory of this process after two rounds of one side."""
    adapter = task.adapter()
    if side == "flb":
        local = task.load()
        for seed in range(2):
            local.train(task.examples, adapter, frozenset(adapter), task.training, seed, lambda *_: None)
    else:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(task.base, dtype=getattr(torch, task.dtype))
        config = LoraConfig(r=task.lora.r, lora_alpha=task.lora.alpha, target_modules=list(task.lora.target_modules))
        model = get_peft_model(model, config)
        for seed in range(2):
            _plain(model, AutoTokenizer.from_pretrained(task.base), {}, task, adapter, seed)
    return round(peak_rss_mib(), 1)


def _peak_of_child(side: str) -> float:
    """The same in a process of its own, so that nothing else counts."""
    command = [sys.executable, "-m", "bench.node", *sys.argv[1:], "--steps", "3", "--memory", side]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
