# SPDX-License-Identifier: Apache-2.0
"""`flb model merge`: base and adapter as one model, which needs neither peft nor FLB.

Weights are only ever added to weights of full precision: a quantized base is refused, or expanded to bfloat16 first
where the user asks for that. An adapter in PyTorch's own format is read with `weights_only`, so no code in it runs.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from flb import base_model
from flb.errors import Refused, WrongBaseModel
from flb_cli.new_folder import new_folder
from flb_node import remote_code
from flb_node.peft_folder import check_adapter, with_adapter

LEFT_OUT = frozenset({".safetensors", ".bin", ".gguf", ".pt", ".pth", ".onnx", ".msgpack", ".h5", ".md"})
"""What of the base is not copied: weights, and the card of another model."""


def run(arguments: argparse.Namespace) -> int:
    """Merge and say how."""
    from flb_node.threads import configure_threads

    configure_threads(None, nodes_here=1)  # before torch is imported, which reads them
    how = merge(
        arguments.base, arguments.adapter, arguments.out, dtype=arguments.dtype, dequantize=arguments.dequantize,
        runs_code=remote_code.allowed_by_argument(arguments.base, arguments.trust_remote_code),
    )  # fmt: skip
    result = {"folder": str(arguments.out), **how}
    if arguments.json:
        print(json.dumps(result))
    else:
        copied = f" on a bfloat16 copy of a {how['dequantized']} base" if how["dequantized"] else ""
        print(f"merged {how['modules']} modules in {how['dtype']}{copied}; the model is in {arguments.out}")
    return 0


def merge(
    base: Path, adapter: Path, out: Path, *, dtype: str = "base", dequantize: bool = False, runs_code: bool = False
) -> dict[str, Any]:
    """Write `base` + `adapter` to `out`, a new folder; returns what was done. `runs_code` is `load_model`'s.

    Raises ModelMissing (no base, no adapter), WrongBaseModel (damaged, or of another model), Refused (the base is
    quantized and `dequantize` is not set), NotAllowedHere (`out` exists).
    """
    check_adapter(adapter)
    base_model.weight_files(base)
    quantized = _quantization(base)
    if quantized and not dequantize:
        raise Refused(
            f"the base model in {base} is quantized ({quantized}), and merging into it would round the adapter away",
            "merge into the unquantized model, or pass --dequantize to merge into a bfloat16 copy",
        )
    with new_folder(out) as part:
        kept = str(base_model.configuration(base).get("dtype") or base_model.configuration(base).get("torch_dtype"))
        chosen = kept if dtype == "base" and kept in ("float32", "bfloat16", "float16") else dtype
        chosen = "bfloat16" if quantized else "float32" if chosen == "base" else chosen
        model = load(base, chosen, bool(quantized), runs_code)
        tuned = with_adapter(model, adapter)
        modules = sum(name.endswith(".lora_A.default") for name, _ in tuned.named_modules())
        try:
            merged = tuned.merge_and_unload(safe_merge=True)
        except ValueError as error:  # peft looks for NaN
            raise WrongBaseModel(f"the adapter in {adapter} holds NaN", "take the adapter of another step") from error
        # transformers cannot undo, name by name, how it read quantized weights; the expanded ones go as they are
        merged.save_pretrained(part, save_original_format=not quantized)
        _copy_rest(base, part)
    return {"dtype": chosen, "modules": modules, "dequantized": quantized}


def load(base: Path, dtype: str, quantized: bool, runs_code: bool) -> Any:
    """The base on the CPU; a quantized one is expanded to `dtype`. Raises as `flb_node.base.load_model`."""
    import torch

    from flb_node.base import load_model
    from flb_node.devices import CPU

    model = load_model(base, getattr(torch, dtype), CPU, runs_code)
    if quantized:
        model = model.dequantize(dtype=getattr(torch, dtype)).to(getattr(torch, dtype))
    return model


def _quantization(base: Path) -> str:
    """How the stored weights are quantized, in a word; empty if they are not."""
    found = base_model.configuration(base).get("quantization_config")
    if not found:
        return ""
    method = str(found.get("quant_method", "quantized")) if isinstance(found, dict) else "quantized"
    if method != "bitsandbytes":
        return method
    return "bitsandbytes, 4 bits" if found.get("load_in_4bit") else "bitsandbytes, 8 bits"


def _copy_rest(base: Path, out: Path) -> None:
    """Tokenizer, chat template, licence and code of the base, beside the new weights."""
    for path in sorted(base.iterdir()):
        target = out / path.name
        weights = path.suffix in LEFT_OUT or path.name.endswith(".index.json")
        if path.is_file() and not path.name.startswith(".") and not weights and not target.exists():
            shutil.copyfile(path, target)
