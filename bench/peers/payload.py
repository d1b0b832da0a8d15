# SPDX-License-Identifier: Apache-2.0
"""The payload that every system carries, and the values that prove that it was carried.

448 float32 tensors: A and B of LoRA rank 16 on the seven linear layers of Llama-3.1-8B's 32 blocks, 160 MiB. Imported
by the peers' own interpreters as well, therefore without dependencies.

Every element of tensor i starts as `start(i)`. Node k of 1..N adds k to what it received, so the average of a round is
what was sent plus (N + 1) / 2: a lost tensor, node or broadcast shows in the result.
"""

RANK = 16
FULL_MIB = 160
FULL_LAYERS = 32
_HIDDEN, _KEY_VALUE, _INTERMEDIATE = 4096, 1024, 14336
MODULES = {
    "q_proj": (_HIDDEN, _HIDDEN),
    "k_proj": (_KEY_VALUE, _HIDDEN),
    "v_proj": (_KEY_VALUE, _HIDDEN),
    "o_proj": (_HIDDEN, _HIDDEN),
    "gate_proj": (_INTERMEDIATE, _HIDDEN),
    "up_proj": (_INTERMEDIATE, _HIDDEN),
    "down_proj": (_HIDDEN, _INTERMEDIATE),
}


def shapes(mib: int) -> list[tuple[str, tuple[int, int]]]:
    """Name and shape of the tensors of about `mib` MiB: whole blocks of 5 MiB and 14 tensors; 160 MiB is the model."""
    made = []
    for layer in range(max(1, round(mib * FULL_LAYERS / FULL_MIB))):
        for module, (d, k) in MODULES.items():
            made += [
                (f"layers.{layer}.{module}.lora_A.weight", (RANK, k)),
                (f"layers.{layer}.{module}.lora_B.weight", (d, RANK)),
            ]
    return made


def payload_mib(mib: int) -> float:
    """Size of the tensors of `shapes(mib)` in MiB, without names and headers."""
    return sum(4 * rows * columns for _, (rows, columns) in shapes(mib)) / (1 << 20)


def start(index: int) -> float:
    """Value of tensor `index` before the first round."""
    return float(index % 251)


def expected(index: int, nodes: int, rounds: int) -> float:
    """Value of tensor `index` after `rounds` rounds of `nodes` nodes."""
    return start(index) + rounds * (nodes + 1) / 2
