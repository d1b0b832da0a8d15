# SPDX-License-Identifier: Apache-2.0
"""Environment of a training process, set before torch is imported: threads, quiet libraries, no network.

Nodes that share a machine share its cores. Threads of OpenMP spin while they wait, and two processes that spin on
the same cores slow each other down more than tenfold; passive waiting costs nothing measurable.
"""

import logging
import os
import sys
import warnings

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
}
"""The base model is a local folder: the libraries need no hub, and report through FLB alone."""


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux; other systems don't pin processes
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure_threads(threads: int | None, nodes_here: int) -> dict[str, str]:
    """Set the environment of this process and return what was set, fit for a child process too.

    `threads`: compute threads, or None for the cores divided by `nodes_here`, at least 1. `nodes_here`: how many nodes
    train on this machine. Call it before torch is imported, which reads the environment once.
    """
    assert "torch" not in sys.modules, "threads are configured after torch was imported, which is too late"
    settings = environment(threads, nodes_here)
    os.environ.update(settings)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl|torch)\.")
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)  # it misses kernels that nobody asked for
    return settings


def environment(threads: int | None, nodes_here: int) -> dict[str, str]:
    """The variables that `configure_threads` sets."""
    count = str(threads if threads is not None else max(1, cores() // max(1, nodes_here)))
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",  # libgomp, in torch for Linux
        "GOMP_SPINCOUNT": "0",
        "KMP_BLOCKTIME": "0",  # libomp and Intel's, in torch for macOS
        "OMP_DYNAMIC": "FALSE",
        **QUIET,
    }
