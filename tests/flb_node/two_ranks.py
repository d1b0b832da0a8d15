# SPDX-License-Identifier: Apache-2.0
"""Two processes train together, and one alone: a program of its own, since torch's groups are a process's for good.

python -m tests.flb_node.two_ranks FOLDER
"""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from flb_node.threads import configure_threads


def main() -> None:
    """Print one JSON object: losses of both, whether a repeat gives the same bits, and the largest difference."""
    configure_threads(1, 1)
    import numpy as np

    from flb_node import ranks, trainer
    from tests.flb_node import test_trainer as single

    folder = Path(sys.argv[1])
    lora = replace(single.LORA, dropout=0.0)
    tensors = single.tensors_of(folder, lora)
    zero = single.adapter_of(tensors)
    load = partial(trainer.load, folder, lora, tensors, device_map="cpu", dtype="float32", seed=0)
    alone = single.train(load(), zero)
    together = ranks.start(load, 2, single.TRAINING)
    seen: list[int] = []
    rounds = [
        together.train(
            single.EXAMPLES,
            zero,
            frozenset(zero),
            single.TRAINING,
            1,
            lambda step, *_: seen.append(step),
            step=0,
            steps=1,
        )
        for _ in range(2)
    ]
    together.close()
    moved = np.sqrt(sum(np.sum((alone.adapter[name] - zero[name]) ** 2) for name in zero))
    apart = np.sqrt(sum(np.sum((alone.adapter[name] - rounds[0].adapter[name]) ** 2) for name in zero))
    same = single.digest(rounds[0].adapter) == single.digest(rounds[1].adapter)
    print(json.dumps({"alone": alone.losses, "together": rounds[0].losses, "same": same, "apart": float(apart / moved),
                      "seen": seen}))  # fmt: skip


if __name__ == "__main__":
    main()
