# SPDX-License-Identifier: Apache-2.0
"""The evaluator process: loads the base model once, then judges one adapter after another on held-out text.

    python -m flb_node.evaluate --base DIR --data FILE --max-length N [--threads T]

Each line on stdin is a request, {"adapter": DIR or null, "prompts": [str, ...]}; each line on stdout its answer,
{"loss": nats a token, "answers": [str, ...], "seconds": s} or {"error": sentence, "code": str}. It ends at the end of
stdin or on SIGTERM, with exit code 0, and with the error's own code if base or data can't be loaded. It computes in
float32, so that its figures don't depend on the machine.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from flb import base_model
from flb.errors import BadMessage, FLBError
from flb_node import data, tokens
from flb_node.threads import configure_threads

if TYPE_CHECKING:  # torch reads the thread settings when it is imported, so main() sets them first
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def main(arguments: list[str] | None = None) -> int:
    """Run the process; returns its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser(prog="python -m flb_node.evaluate", description="Judge adapters on held-out text.")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--data", type=Path, required=True, help="held-out examples, a .jsonl file or a folder of them")
    parser.add_argument("--max-length", type=int, required=True, help="longest example in tokens; the rest is cut off")
    parser.add_argument("--threads", type=int, help="compute threads (default: all cores)")
    options = parser.parse_args(arguments)
    configure_threads(options.threads, nodes_here=1)
    out = _claim_stdout()
    try:
        _serve(options.base, options.data, options.max_length, out)
    except FLBError as error:
        print(f"flb_node.evaluate: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _claim_stdout() -> TextIO:
    """Keep stdout for answers: whatever a library prints goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _serve(base_dir: Path, data_file: Path, max_length: int, out: TextIO) -> None:
    examples = data.read(data_file)
    base_model.weight_files(base_dir)  # both are looked at before torch is, which takes seconds to import

    import torch

    from flb_node import base
    from flb_node.devices import CPU

    base.use_configured_threads()
    tokenizer = base.load_tokenizer(base_dir)
    model = base.load_model(base_dir, torch.float32, CPU)
    encoded = tokens.encode_all(tokenizer, examples, max_length)
    for line in iter(sys.stdin.readline, ""):
        if line.strip():
            print(json.dumps(_answer(line, model, tokenizer, encoded)), file=out, flush=True)


def _answer(
    line: str, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", encoded: Sequence[tokens.Tokens]
) -> dict[str, Any]:
    from flb_node import held_out

    start = time.perf_counter()
    try:
        adapter, prompts = _request(line)
        tuned = _tuned(model, Path(adapter)) if adapter else model
        try:
            loss = held_out.measure(tuned, encoded).loss
            answers = held_out.answers(tuned, tokenizer, prompts)
        finally:
            if adapter:
                tuned.unload()  # the base is itself again
    except FLBError as error:
        return {"error": str(error), "code": error.code}
    return {"loss": loss, "answers": answers, "seconds": round(time.perf_counter() - start, 3)}


def _request(line: str) -> tuple[str | None, list[str]]:
    """Adapter folder and prompts. Raises BadMessage."""
    form = 'write {"adapter": DIR or null, "prompts": [str, ...]}'
    try:
        request = json.loads(line)
    except ValueError as error:
        raise BadMessage("the request is not JSON", form) from error
    if not isinstance(request, dict) or set(request) - {"adapter", "prompts"}:
        raise BadMessage("the request is not an object with the fields adapter and prompts", form)
    adapter, prompts = request.get("adapter"), request.get("prompts", [])
    if not (adapter is None or isinstance(adapter, str)):
        raise BadMessage("the adapter of the request is not the name of a folder", form)
    if not (isinstance(prompts, list) and all(isinstance(prompt, str) and prompt for prompt in prompts)):
        raise BadMessage("the prompts of the request are not a list of texts", form)
    return adapter, prompts


def _tuned(model: "PreTrainedModel", adapter: Path) -> Any:
    from flb_node import peft_folder

    peft_folder.check_adapter(adapter)
    return peft_folder.with_adapter(model, adapter)


if __name__ == "__main__":
    sys.exit(main())
