# SPDX-License-Identifier: Apache-2.0
"""Fine-tune Falcon on this machine with trl and peft: download, train, save, load, merge. FLB has no part in it.

    python examples/falcon/sft.py                                  # a few steps on the examples below
    python examples/falcon/sft.py --model DIR --data FILE.jsonl    # a model on this disk, your own data

Each line of the data is {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

MODEL = "tiiuae/falcon-7b-instruct"
EXAMPLES = (
    ("What is a federation?", "Many who stay independent, and one purpose."),
    ("Why does data stay at home?", "What never leaves cannot be lost on the way."),
    ("What does LoRA train?", "Two narrow matrices beside each layer; the layer stays as it was."),
    ("What is a round?", "All train from the same adapter, and their mean is the next one."),
)


def download(model: str) -> Path:
    """The folder of the model: its own if it is one, else a snapshot from the hub."""
    # left out are the same weights in other formats
    return (
        Path(model) if Path(model).is_dir() else Path(snapshot_download(model, ignore_patterns=["*.bin", "coreml/*"]))
    )


def load(folder: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Model and tokenizer: bfloat16 on a GPU, float32 on a CPU, where bfloat16 is often the slower one."""
    gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if gpu else torch.float32,
        device_map="auto" if gpu else None,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def conversations(data: str | None) -> Dataset:
    """Prompt and completion apart, so that the loss counts the completion alone."""
    if data is None:
        rows = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in EXAMPLES]
    else:
        rows = load_dataset("json", data_files=data, split="train")["messages"]
    return Dataset.from_list([{"prompt": list(row[:-1]), "completion": [row[-1]]} for row in rows])


def train(model: Any, tokenizer: PreTrainedTokenizerBase, data: Dataset, out: Path, steps: int) -> None:
    """LoRA on every linear layer but the head; the adapter goes to `out`."""
    # here these are dense, dense_4h_to_h, dense_h_to_4h, query_key_value
    gpu = torch.cuda.is_available()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            max_length=512,
            completion_only_loss=True,
            gradient_checkpointing=gpu,  # less memory for a third more work
            bf16=gpu,
            use_cpu=not gpu,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(str(out))


def merge(folder: Path, adapter: Path, out: Path) -> Any:
    """Load base and adapter anew and write them as one model, which needs no peft."""
    model, tokenizer = load(folder)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return merged


def answer(model: Any, tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """One answer, always the likeliest token."""
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    ).to(model.device)
    out = model.eval().generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def main(argv: list[str] | None = None) -> int:
    """Download, train, save, load, merge, answer."""
    parser = argparse.ArgumentParser(description="Fine-tune Falcon on this machine, without federation.")
    parser.add_argument("--model", default=MODEL, help="folder, or repository on the hub (default: %(default)s)")
    parser.add_argument("--data", help="JSON lines of messages (default: four examples)")
    parser.add_argument(
        "--out", type=Path, default=Path("falcon-sft"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps (default: %(default)s)")
    arguments = parser.parse_args(argv)
    folder = download(arguments.model)
    model, tokenizer = load(folder)
    train(model, tokenizer, conversations(arguments.data), arguments.out / "adapter", arguments.steps)
    del model  # the merge loads its own
    merged = merge(folder, arguments.out / "adapter", arguments.out / "merged")
    print(answer(merged, tokenizer, EXAMPLES[0][0]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
