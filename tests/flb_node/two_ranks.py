# SPDX-License-Identifier: Apache-2.0
"""Two processes train together, and one alone: a program of its own, since torch's groups are a process's for good.

python -m tests.flb_node.two_ranks FOLDER [node]
"""

import json
import multiprocessing
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from flb_node.threads import configure_threads

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
PATIENCE = timedelta(seconds=3)
"""Of the second process: less than this program waits between two rounds."""


def load(*arguments: Any, **options: Any) -> Any:
    """`flb_node.trainer.load`, in the second process with less patience."""
    from flb_node import ranks, trainer

    if multiprocessing.parent_process() is not None:
        ranks.PATIENCE = PATIENCE
    return trainer.load(*arguments, **options)


def main() -> None:
    """Print one JSON object: losses of both, what a round that fails says, whether a repeat after it and after a pause
    gives the same bits, and the largest difference."""
    configure_threads(1, 1)
    import numpy as np

    from flb.errors import ChildFailed, TrainingFailed
    from flb.lora import parts
    from flb_node import ranks
    from tests.flb_node import test_trainer as single

    folder = Path(sys.argv[1])
    lora = replace(single.LORA, dropout=0.0)
    tensors = single.tensors_of(folder, lora)
    zero = single.adapter_of(tensors)
    template = folder / "other.jinja"
    template.write_text(TEMPLATE)
    ready = partial(
        load, folder, lora, tensors, device_map="cpu", dtype="float32", seed=0, chat_template=template
    )  # fmt: skip
    one = ready()
    alone = single.train(one, zero)
    stacked = {**zero, **parts.frozen(alone.adapter)}
    on_top = single.train(one, stacked)
    together = ranks.start(ready, 2, single.TRAINING, single.EXAMPLES)
    seen: list[int] = []

    def train(training: Any) -> Any:
        note = lambda step, *_: seen.append(step)  # noqa: E731
        return together.train(zero, frozenset(zero), training, 1, note, step=0, steps=1)

    rounds = [train(single.TRAINING)]
    failed = ended = ""
    try:
        train(replace(single.TRAINING, learning_rate=1e30))
    except TrainingFailed as error:
        failed = error.what
    seen.clear()
    time.sleep(2 * PATIENCE.total_seconds())
    rounds.append(train(single.TRAINING))
    both = together.train(stacked, frozenset(zero), single.TRAINING, 1, lambda *_: None, step=0, steps=1)
    together.followers[0].terminate()
    together.followers[0].join()
    try:
        train(single.TRAINING)
    except ChildFailed as error:
        ended = error.what
    together.close()
    moved = np.sqrt(sum(np.sum((alone.adapter[name] - zero[name]) ** 2) for name in zero))
    apart = np.sqrt(sum(np.sum((alone.adapter[name] - rounds[0].adapter[name]) ** 2) for name in zero))
    same = single.digest(rounds[0].adapter) == single.digest(rounds[1].adapter)
    print(json.dumps({"alone": alone.losses, "together": rounds[0].losses, "same": same, "apart": float(apart / moved),
                      "on_top": [on_top.losses, both.losses],
                      "seen": seen, "failed": failed, "ended": ended}))  # fmt: skip


def node() -> None:
    """A node of two processes, made as the app makes it. Print one JSON object: whether the adapter moved, the files of
    tokens, and how many followers there are before and after the end."""
    configure_threads(1, 1)
    from flb.config import ChainConfig, ClientConfig, Config, ModelConfig
    from flb.types import Step
    from flb_node import app
    from flb_node.status import StatusFile
    from tests.flb_node import test_app_training as single

    app.configure_threads = lambda *_: None  # torch is imported here already, with these threads
    folder = Path(sys.argv[1])
    config = Config(
        model=ModelConfig(model_path=folder, device_map="cpu", dtype="float32"),
        client=ClientConfig(workdir=folder / "work", processes=2, threads=1),
        chain=ChainConfig(run="0x" + "11" * 20),
    )
    (folder / "work").mkdir()
    status = StatusFile(folder / "work" / "status.json", lambda text: None)
    zero = single.adapter_of(single.tensors_of(folder))
    with ExitStack() as ending:
        train = app.make_trainer(
            config, single.spec_of(folder), single.EXAMPLES, status, threading.Event(), None, ending
        )
        moved = single.digest(train(zero, frozenset(zero), 1, Step(1))) != single.digest(zero)
        before = len(multiprocessing.active_children())
    files = len(list((folder / "work" / "tokens").iterdir()))
    after = len(multiprocessing.active_children())
    print(json.dumps({"moved": moved, "files": files, "before": before, "after": after}))


if __name__ == "__main__":
    node() if sys.argv[2:] == ["node"] else main()
