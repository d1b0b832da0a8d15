# SPDX-License-Identifier: Apache-2.0
"""The server's half: Flower's own FedAvg in the loop of its `Strategy.start`, without evaluation, with a clock."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from bench.peers import payload

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Write {"rounds": seconds of each, "right": bool}, or {"error": text}, to the file that the configuration names.

    The SuperLink outlives a ServerApp that fails: without the error in the file nobody would hear of it.
    """
    settings = context.run_config
    nodes, mib, rounds = (int(settings[name]) for name in ("nodes", "mib", "rounds"))
    told: dict[str, object] = {}
    try:
        seconds, right = _rounds(grid, nodes, mib, rounds)
        told = {"rounds": seconds, "right": right}
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        done = Path(str(settings["result"]))
        done.with_suffix(".part").write_text(json.dumps(told))
        done.with_suffix(".part").rename(done)


def _rounds(grid: Grid, nodes: int, mib: int, rounds: int) -> tuple[list[float], bool]:
    """Seconds of every round, and whether each tensor has the expected values after the last one."""
    names = payload.shapes(mib)
    arrays = ArrayRecord(
        {name: Array(np.full(shape, payload.start(i), np.float32)) for i, (name, shape) in enumerate(names)}
    )
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.2)
    seconds = []
    for number in range(1, rounds + 1):
        begin = time.monotonic()
        replies = grid.send_and_receive(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        averaged, _ = strategy.aggregate_train(number, replies)
        if averaged is None:
            raise RuntimeError("no reply could be averaged")
        arrays = averaged
        seconds.append(time.monotonic() - begin)
    right = all(
        np.allclose(arrays[name].numpy(), payload.expected(i, nodes, rounds), rtol=0, atol=1e-3)
        for i, (name, _) in enumerate(names)
    )
    return seconds, right
