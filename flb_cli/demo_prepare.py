# SPDX-License-Identifier: Apache-2.0
"""What a demo needs before its first process: the base model, and in which type this machine computes faster.

Both are made once and kept in the cache. It happens in a child process, which takes torch and the memory of the
conversion with it, and while nothing else runs, so that the measurement is worth something.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flb import base_model
from flb.errors import ChildFailed, MissingTool
from flb.lora import layout
from flb.spec import LoraSpec
from flb.store import write_atomic
from flb_cli import demo_base
from flb_node.threads import environment


def prepare(cache: Path, report: Callable[[str], None]) -> tuple[Path, str]:
    """Folder of the base model, and the compute type. Raises ModelMissing, MissingTool or ChildFailed."""
    try:
        torch = version("torch")
    except PackageNotFoundError as error:
        raise MissingTool("the demo needs torch, transformers, peft and trl", "pip install 'flb[demo]'") from error
    folder, note = cache / demo_base.NAME, cache / f"{demo_base.NAME}.compute-{torch}.json"
    if not (folder.is_dir() and note.exists()):
        demo_base.gguf_file()  # says what is missing, before anything is started
        report("preparing the base model, once: safetensors from its package, one step timed in two types")
        command = [sys.executable, "-m", "flb_cli.demo_prepare", str(cache), str(note)]
        child = {**os.environ, **environment(1, 1)}
        done = subprocess.run(command, env=child, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = "".join(done.stderr.strip().splitlines()[-1:])
            raise ChildFailed(f"the base model could not be prepared ({said})", f"remove {cache} and try again")
    return folder, str(json.loads(note.read_text())["dtype"])


def main(cache: Path, note: Path) -> None:
    """The child: convert, time one step in each type, write the choice down."""
    folder = demo_base.ensure(cache, lambda text: None)
    modules = layout.resolve(base_model.tensors(folder), layout.ALL_LINEAR)
    lora = LoraSpec("factors", 8, 16, 0.05, layout.module_names(modules))
    from flb_node import trainer

    timed = trainer.load(folder, lora, layout.adapter_tensors(modules, lora.r), device_map="auto", seed=0)
    choice = {"dtype": timed.dtype, "seconds": timed.measured, "device": timed.device}
    write_atomic(note, json.dumps(choice).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
