# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training over several processes of one machine: this process is rank 0, and it alone talks.

The others hold the same base, wait for a round's task and train along; torch averages the gradients (DDP through
accelerate), each on its share of every batch. Tasks go through pipes, for torch's own messages time out while a node
waits for the next round. They end with this process. The sums of a batch are rounded in another
order than with one process: the result is as good and has other bits.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp

from flb.errors import ChildFailed, ConfigError, FLBError
from flb.spec import TrainingSpec
from flb_node.data import Example
from flb_node.trainer import LocalTrainer, Trained

PATIENCE = timedelta(minutes=10)
"""A rank that is silent for so long in the middle of a step is taken for dead."""
Load = Callable[..., LocalTrainer]
"""`flb_node.trainer.load` with all its arguments, fit for pickling; `dtype` is given again."""


@dataclass(slots=True)
class Ranks:
    """Rank 0 with its followers; `train` is `LocalTrainer.train` on the examples that all of them have."""

    local: LocalTrainer
    examples: Sequence[Example]
    followers: Sequence[Any]
    tasks: Sequence[Connection]

    def train(
        self, adapter: Any, trainable: frozenset[str], training: TrainingSpec, seed: int, on_step: Any, **place: Any
    ) -> Trained:
        """Train on all ranks; raises what `LocalTrainer.train` raises here, ConfigError for what can't be split, and
        ChildFailed if another process has ended."""
        shared = split(training, len(self.followers) + 1)
        try:
            for tasks in self.tasks:
                tasks.send((adapter, trainable, shared, seed, place))
        except OSError as error:
            raise ChildFailed(
                "a process that trains along has ended",
                "start the node again; if it comes again, lower client.processes",
            ) from error
        return self.local.train(self.examples, adapter, trainable, shared, seed, on_step, **place)

    def close(self) -> None:
        """End the followers."""
        for process in self.followers:
            process.terminate()
            process.join()
        dist.destroy_process_group()


def split(training: TrainingSpec, processes: int) -> TrainingSpec:
    """Each rank's share of the training. Raises ConfigError for what can't be split."""
    if training.batch_size % processes:
        raise ConfigError(
            f"the run's batches of {training.batch_size} examples can't be shared by {processes} processes",
            "set client.processes to a divisor of it",
        )
    if training.fedprox_mu or training.optimizer_state != "reset" or training.local_epochs:
        raise ConfigError(
            "FedProx, a kept optimizer state and local epochs run in one process in this version",
            "set client.processes to 1",
        )
    return replace(training, batch_size=training.batch_size // processes)


def start(load: Load, processes: int, training: TrainingSpec, examples: Sequence[Example]) -> Ranks:
    """Load here, start the followers, and meet. Each rank has a GPU of its own where the model is on one.

    Every rank gets the examples now, once: they are far larger than a round's task. The followers compute in the type that this process has measured, with as many threads. Raises what `load` raises,
    and ConfigError for a training that can't be split.
    """
    split(training, processes)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(processes)))).split(",")
    gpus = [visible[rank] if rank < len(visible) else "" for rank in range(processes)]
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]
    local = load()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alike = partial(load, dtype=local.dtype)
    spawn = mp.get_context("spawn")
    followers, tasks = [], []
    for rank in range(1, processes):
        theirs, ours = spawn.Pipe(duplex=False)
        process = spawn.Process(
            target=_follow, args=(alike, examples, theirs, rank, processes, port, gpus[rank]), daemon=True
        )
        process.start()
        theirs.close()  # so that writing fails once the follower is gone
        followers.append(process)
        tasks.append(ours)
    _meet(local.device, 0, processes, port)
    return Ranks(local, examples, followers, tasks)


def _meet(device: str, rank: int, processes: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=processes, timeout=PATIENCE)


def _follow(
    load: Load, examples: Sequence[Example], tasks: Connection, rank: int, processes: int, port: int, gpu: str
) -> None:
    """A follower's whole life; it ends with its connection to rank 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; rank 0 decides
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    local = load()
    _meet(local.device, rank, processes, port)
    while True:
        try:
            adapter, trainable, training, seed, place = tasks.recv()
        except EOFError:
            return
        with suppress(FLBError):  # rank 0 meets it too, and says it
            local.train(examples, adapter, trainable, training, seed, lambda *_: None, **place)
