# SPDX-License-Identifier: Apache-2.0
"""From the base model's tensors to the adapter's: which modules are adapted, under which names and shapes.

Works from the shapes in the base's safetensors headers and the `model_type` of its config.json alone, so whoever
deploys a run needs no torch. `all-linear` means what it means to peft: every linear layer but the output head.
"""

import difflib
import re
from collections.abc import Iterable

from flb.errors import Refused
from flb.types import TensorSpec

ALL_LINEAR = "all-linear"
QKV, GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
FUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "bloom": {"query_key_value": QKV},
    "chatglm": {"query_key_value": QKV, "dense_h_to_4h": GATE_UP},
    "falcon": {"query_key_value": QKV},
    "glm": {"gate_up_proj": GATE_UP},
    "glm4": {"gate_up_proj": GATE_UP},
    "gpt2": {"c_attn": QKV},
    "gpt_neox": {"query_key_value": QKV},
    "minicpm3": {"q_a_proj": ("q_proj",), "kv_a_proj_with_mqa": ("k_proj", "v_proj"), "q_b_proj": ("q_proj",),
                 "kv_b_proj": ("k_proj", "v_proj")},
    "phi3": {"qkv_proj": QKV, "gate_up_proj": GATE_UP},
}  # fmt: skip
"""By `model_type`: the modules under their own names, and which of Llama's they hold. The usual list of names would
adapt a third of such a model; who asks for one of them is told its name here."""
TRANSPOSED = frozenset({"gpt2", "openai-gpt"})
"""Model types whose layers are transformers' Conv1D: the weight is stored as (k, d)."""
PREFIXES = {"bloom": "transformer", "gpt2": "transformer"}
"""Model types whose published files leave out the first part of the module path that the loaded model has."""
HEADS = frozenset({"lm_head", "embed_out", "output_layer", "output", "head"})
EMBEDDINGS = re.compile(r"embed|^wte$|^wpe$")
EXPERTS = re.compile(r"^(.*\.)experts\.")
ROUTERS = frozenset({"gate", "router"})


def linear_modules(base: Iterable[TensorSpec], model_type: str = "") -> dict[str, tuple[int, int]]:
    """Module path in the loaded model -> (d, k) = (outputs, inputs) of every linear layer; heads and embeddings are
    no such layer, and neither are experts, which transformers keeps as one tensor, nor what routes to them."""
    tensors = [(tensor.name.split("."), tensor.shape) for tensor in base]
    mixtures = {found[1] for parts, _ in tensors if (found := EXPERTS.match(".".join(parts)))}
    modules: dict[str, tuple[int, int]] = {}
    for parts, shape in tensors:
        if len(shape) != 2 or parts[-1] != "weight" or len(parts) < 2 or EMBEDDINGS.search(parts[-2]):
            continue
        path, above = ".".join(parts[:-1]), "".join(part + "." for part in parts[:-2])
        if EXPERTS.match(path + ".") or (parts[-2] in ROUTERS and above in mixtures):
            continue
        if parts[-2] in HEADS and not any(part.isdigit() for part in parts):
            continue
        prefix = PREFIXES.get(model_type, "")
        if prefix and parts[0] != prefix:
            path = f"{prefix}.{path}"
        modules[path] = (shape[1], shape[0]) if model_type in TRANSPOSED else (shape[0], shape[1])
    return modules


def resolve(
    base: Iterable[TensorSpec], wanted: str | tuple[str, ...], model_type: str = ""
) -> dict[str, tuple[int, int]]:
    """The linear modules whose last name is wanted, or all of them, as `linear_modules` gives them.

    Raises Refused if a name matches nothing; the sentence lists the names that exist, the nearest first.
    """
    modules = linear_modules(base, model_type)
    if not modules:
        raise Refused("the base model has no linear layer that can be adapted", "choose a causal language model")
    if wanted == ALL_LINEAR:
        return modules
    names = (wanted,) if isinstance(wanted, str) else wanted
    known = {_last(path) for path in modules}
    for name in names:
        if name not in known:
            near = ", ".join(nearest(name, known, model_type))
            raise Refused(f"lora.target_modules: {name!r} matches no layer of the base model", f"it has {near}")
    return {path: shape for path, shape in modules.items() if _last(path) in names}


def nearest(name: str, known: Iterable[str], model_type: str) -> list[str]:
    """The known names in order of likeness: those that hold `name` fused, then by spelling, then by the alphabet."""
    fused = FUSED.get(model_type, {})

    def distance(other: str) -> tuple[bool, float, str]:
        return name not in fused.get(other, ()), -difflib.SequenceMatcher(None, name, other).ratio(), other

    return sorted(known, key=distance)


def adapter_tensors(modules: dict[str, tuple[int, int]], r: int) -> tuple[TensorSpec, ...]:
    """Names and shapes of the adapter file as peft writes it, in byte order: A is (r, k), B is (d, r)."""
    tensors = []
    for path, (d, k) in modules.items():
        tensors.append(TensorSpec(f"base_model.model.{path}.lora_A.weight", (r, k)))
        tensors.append(TensorSpec(f"base_model.model.{path}.lora_B.weight", (d, r)))
    return tuple(sorted(tensors, key=lambda tensor: tensor.name.encode()))


def module_names(modules: dict[str, tuple[int, int]]) -> tuple[str, ...]:
    """The distinct last names, sorted: what `target_modules` of peft takes."""
    return tuple(sorted({_last(path) for path in modules}))


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]
