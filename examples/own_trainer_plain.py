# SPDX-License-Identifier: Apache-2.0
"""Fine-tune with trl alone: the model in `model/`, the conversations in `data.jsonl`, the adapter to `adapter/`."""

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

trainer = SFTTrainer(
    model="model",
    args=SFTConfig(
        "trained", max_steps=4, per_device_train_batch_size=2, learning_rate=1e-3, bf16=False, report_to="none"
    ),
    train_dataset=Dataset.from_json("data.jsonl"),
    peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model("adapter")
