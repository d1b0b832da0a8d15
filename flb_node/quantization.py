# SPDX-License-Identifier: Apache-2.0
"""The base model in 8 or 4 bits through bitsandbytes, on a CPU or a CUDA GPU; the adapter stays float32.

int8 is LLM.int8() (Dettmers et al., 2022), 4 bits are NF4 with doubly quantized scales (QLoRA, Dettmers et al., 2023).
Quantization is each node's own choice: the run spec names the unquantized weights, which are what is on disk.

Embeddings, output head and norms stay in the compute type. peft's `prepare_model_for_kbit_training` would copy them to
float32, which for a small model is most of its weights; the models' norms compute in float32 by themselves, and peft
freezes the base when the adapter is put on.
"""

import importlib.util

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from flb.errors import ConfigError, MissingTool

WHERE = ("cpu", "cuda")


def config_of(bits: int | None, dtype: torch.dtype, device: str) -> BitsAndBytesConfig | None:
    """What `from_pretrained` takes; None for `bits` None. `dtype` is what 4-bit products compute in.

    Raises ConfigError where bitsandbytes has no kernels, MissingTool where it is not installed.
    """
    if bits is None:
        return None
    if device.partition(":")[0] not in WHERE:
        raise ConfigError(
            f"model.quantization is {bits}, which does not run on {device}",
            "set model.quantization to null, or model.device_map to cpu",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingTool(
            f"model.quantization is {bits}, and the package bitsandbytes is not installed",
            "run: pip install bitsandbytes, or set model.quantization to null",
        )
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def keep_unpacked(model: PreTrainedModel) -> None:
    """Let 4-bit weights stay as they were loaded.

    On CPUs with AVX-512 bfloat16 the first forward pass in evaluation mode rearranges them for inference alone: the
    shapes must then be multiples of 32, and a later training step would meet them rearranged.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
