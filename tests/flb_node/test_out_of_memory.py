# SPDX-License-Identifier: Apache-2.0
"""Memory that runs out: a real limit on a process of its own, and what the sentence promises."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flb.errors import OutOfMemory
from flb_node import out_of_memory
from tests import tiny_model

pytestmark = pytest.mark.model

STARVED = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from flb_node.threads import configure_threads
configure_threads(1, 1)
from flb.errors import OutOfMemory
from tests.flb_node import test_trainer as t
folder = Path(sys.argv[1])
zero = t.adapter_of(t.tensors_of(folder))
local = t.load(folder)
first = t.digest(t.train(local, zero).adapter)
examples = tuple(t.Example((t.Message("user", "a" * 300), t.Message("assistant", "b" * 200))) for _ in range(1024))
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 500 * 2**20, resource.RLIM_INFINITY))
try:
    local.train(examples, zero, frozenset(zero), replace(t.TRAINING, batch_size=1024, max_length=512), 1, lambda *_: None)
except OutOfMemory as error:
    print(error)
print(t.digest(t.train(local, zero).adapter) == first)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not hold to RLIMIT_AS")
def test_train__step_that_does_not_fit__says_what_fits_and_trains_on(tmp_path: Path) -> None:
    tiny_model.build(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", STARVED, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr[-2000:]
    assert "a step of 1024 examples of up to 512 tokens does not fit into memory" in lines[0]
    assert "set training.gradient_checkpointing: true" in lines[0] and "set model.quantization: 8 or 4" in lines[0]
    assert "(this fits here)" in lines[0]
    assert lines[1] == "True"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_is_out_of_memory__error__is_told_apart(error: Exception, expected: bool) -> None:
    assert out_of_memory.is_out_of_memory(error) is expected
    outer = ValueError("wrapped")
    outer.__cause__ = error
    assert out_of_memory.is_out_of_memory(outer) is expected


@pytest.mark.parametrize(("bits", "remedy"), [(None, "8 or 4"), (8, "quantization to 4"), (4, "more memory")])
def test_while_loading__out_of_memory__names_the_next_smaller_base(bits: int | None, remedy: str) -> None:
    with pytest.raises(OutOfMemory, match=remedy), out_of_memory.while_loading(bits):
        raise MemoryError
    with pytest.raises(ValueError, match="other"), out_of_memory.while_loading(bits):
        raise ValueError("other")
