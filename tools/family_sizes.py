# SPDX-License-Identifier: Apache-2.0
"""What each family needs, computed from the shapes of its published model: docs/models.md and the examples quote it.

    python -m tools.family_sizes          # the tables of docs/models.md
    python -m tools.family_sizes --json

Nothing is downloaded: the architecture is built on torch's meta device, which holds shapes alone. Memory and time are
estimates, and say so where they are printed; bytes per round are exact.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

from flb.admission import coded_layout, update_metadata
from flb.lora.layout import adapter_tensors, linear_modules, module_names
from flb.types import Codec, TensorSpec
from flb.wire import container

RANK, BATCH, LENGTH, STEPS = 8, 4, 512, 10
"""LoRA rank, examples a step, tokens an example, optimizer steps a round: FLB's defaults."""
TERA = 20e12
"""Operations a second that the estimate of time assumes: what a consumer GPU of 24 GB reaches in bfloat16."""

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "phi-3": ("microsoft/Phi-3-mini-4k-instruct", "phi3", {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32064, "pad_token_id": 32000}),
    "llama-3.1": ("meta-llama/Llama-3.1-8B-Instruct", "llama", {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256}),
    "gemma-2": ("google/gemma-2-2b-it", "gemma2", {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000}),
    "minicpm": ("openbmb/MiniCPM3-4B", "minicpm3", {}),
    "falcon": ("tiiuae/falcon-7b-instruct", "falcon", {
        "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "vocab_size": 65024}),
    "qwen2": ("Qwen/Qwen2-1.5B-Instruct", "qwen2", {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True}),
    "chatglm": ("zai-org/glm-4-9b-chat-hf", "glm", {
        "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40, "num_attention_heads": 32,
        "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 151552, "attention_bias": True}),
}  # fmt: skip
"""By the folder of the example: repository, `model_type`, and the sizes in its config.json that differ from what
transformers takes for default."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """One family. Bytes throughout; `gpu` and `gpu_4bit` estimate the memory that training takes on a GPU, in bfloat16
    and with a base of 4 bits, both with gradient checkpointing; `round_seconds` is computing alone."""

    example: str
    repository: str
    model_type: str
    parameters: int
    modules: tuple[str, ...]
    adapter_parameters: int
    weights: int
    weights_4bit: int
    gpu: int
    gpu_4bit: int
    round_seconds: int
    up_mxint8: int
    down_f32: int


def sizes(example: str) -> Sizes:
    """The figures of one family."""
    repository, model_type, settings = MODELS[example]
    base, layers, hidden, vocabulary = _shapes(model_type, settings)
    parameters = sum(tensor.size for tensor in base)
    modules = linear_modules(base, model_type)
    adapter = adapter_tensors(modules, RANK)
    linear = sum(d * k for d, k in modules.values())
    trained = sum(tensor.size for tensor in adapter)
    # 4 bits, and a float32 scale for each 64 weights; embeddings, head and norms stay as they are
    narrow = linear // 2 + linear // 16 + 2 * (parameters - linear)
    tokens = BATCH * LENGTH
    # of each layer its input; of the one layer being computed anew, inputs (once in float32 for LoRA) and outputs
    kept = 2 * hidden * layers + sum(6 * k + 2 * d for d, k in modules.values()) // layers
    # logits and their gradients in float32, where half of the tokens are completion
    logits = tokens // 2 * vocabulary * 8
    # weights, gradients and the two moments of AdamW in float32; a gigabyte for the driver's own
    working = tokens * kept + logits + 16 * trained + 10**9
    metadata = update_metadata(bytes(32), bytes(20), bytes(32))
    return Sizes(
        example=example,
        repository=repository,
        model_type=model_type,
        parameters=parameters,
        modules=module_names(modules),
        adapter_parameters=trained,
        weights=2 * parameters,
        weights_4bit=narrow,
        gpu=2 * parameters + working,
        gpu_4bit=narrow + working,
        # two operations a weight forward, again when recomputed, and two back to the inputs; weights get no gradient
        round_seconds=round(6 * parameters * tokens * STEPS / TERA),
        up_mxint8=coded_layout(Codec.MXINT8, adapter, metadata).size,
        down_f32=len(container.adapter_header(adapter)) + container.data_size(adapter, "F32"),
    )


def _shapes(model_type: str, settings: dict[str, Any]) -> tuple[tuple[TensorSpec, ...], int, int, int]:
    """Names and shapes of all weights, tied ones once; the number of layers; the width; the size of the vocabulary."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(model_type, **settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = tuple(TensorSpec(name, tuple(weight.shape)) for name, weight in model.named_parameters())
    return shapes, int(config.num_hidden_layers), int(config.hidden_size), int(config.vocab_size)


def family_row(found: Sizes) -> str:
    """The line of docs/models.md about the architecture."""
    names = ", ".join(f"`{name}`" for name in found.modules)
    return f"| [{found.example}](../examples/{found.example}) | `{found.model_type}` | {found.repository} | {names} |"


def size_row(found: Sizes) -> str:
    """The line of docs/models.md about sizes."""
    return (
        f"| {found.example} | {found.parameters / 1e9:.2f} | {found.adapter_parameters / 1e6:.1f} "
        f"| {found.weights / 1e9:.1f} | {found.weights_4bit / 1e9:.1f} | {found.gpu / 1e9:.0f} "
        f"| {found.gpu_4bit / 1e9:.0f} | {found.round_seconds} | {found.up_mxint8 / 1e6:.1f} "
        f"| {found.down_f32 / 1e6:.1f} |"
    )


def main() -> None:
    """Print both tables, or everything as JSON."""
    parser = argparse.ArgumentParser(description="What each family needs, from shapes.")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    found = [sizes(example) for example in MODELS]
    if parser.parse_args().json:
        print(json.dumps([asdict(item) for item in found]))
        return
    for row in (family_row, size_row):
        print("\n".join(map(row, found)), end="\n\n")


if __name__ == "__main__":
    main()
