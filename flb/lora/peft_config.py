# SPDX-License-Identifier: Apache-2.0
"""What peft reads beside an adapter's weights, so that each adapter is a folder for `PeftModel.from_pretrained`."""

import json

from flb.lora.shape import alpha_at
from flb.spec import BaseSpec, LoraSpec


def peft_config(base: BaseSpec, lora: LoraSpec, rank: int) -> bytes:
    """adapter_config.json of an adapter of `rank` as peft reads it, with the run's one scale; it names the base's repository
    where the run does, so that it can be found."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.repo or base.name,
        "revision": base.revision or None,
        "r": rank,
        "lora_alpha": alpha_at(lora, rank),
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
    if lora.rslora:
        config["use_rslora"] = True
    return json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"
