# SPDX-License-Identifier: Apache-2.0
"""`flb model chat`: talk to a base model with an adapter on it; answers appear as they are made."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flb.errors import BadMessage, WrongBaseModel
from flb_node import remote_code
from flb_node.examples import Message

Write = Callable[[str], None]


def run(arguments: argparse.Namespace) -> int:
    """One answer with --prompt, else a conversation until the end of the input."""
    if arguments.max_tokens < 1:
        raise BadMessage(f"--max-tokens is {arguments.max_tokens}", "give at least 1")
    if not 0 <= arguments.temperature < math.inf:
        raise BadMessage(f"--temperature is {arguments.temperature:g}", "give 0 or more")
    if arguments.json and arguments.prompt is None:
        raise BadMessage("--json prints one answer", "give --prompt too")
    from flb_node.threads import configure_threads

    configure_threads(None, nodes_here=1)  # before torch is imported, which reads them
    model, tokenizer = load(
        arguments.base, arguments.adapter, arguments.device,
        remote_code.allowed_by_argument(arguments.base, arguments.trust_remote_code), arguments.chat_template,
    )  # fmt: skip
    talk = Conversation(model, tokenizer, arguments.max_tokens, arguments.temperature)
    if arguments.prompt is not None:
        start = time.perf_counter()
        answer = talk.say(arguments.prompt, (lambda text: None) if arguments.json else _print)
        seconds = time.perf_counter() - start
        if arguments.json:
            print(json.dumps({"answer": answer, "tokens": talk.made, "seconds": round(seconds, 3)}))
        else:
            print()
        return 0
    if sys.stdin.isatty():
        print("write a line; an empty one or Ctrl-D ends", file=sys.stderr)
    while line := _line():
        talk.say(line, _print)
        print()
    return 0


def load(
    base: Path, adapter: Path | None, device: str = "auto", runs_code: bool = False, chat_template: Path | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer, ready to answer; `chat_template` is a file that takes the place of the tokenizer's own.

    Raises ModelMissing, WrongBaseModel, DatasetError for the file."""
    from flb import base_model
    from flb_node.peft_folder import check_adapter, with_adapter

    base_model.weight_files(base)
    if adapter is not None:
        check_adapter(adapter)
    import torch

    from flb_node import tokens
    from flb_node.base import load_model, load_tokenizer, use_configured_threads
    from flb_node.devices import placement

    use_configured_threads()
    place = placement(device, torch.cuda.device_count(), torch.backends.mps.is_available())
    tokenizer = load_tokenizer(base, runs_code)
    tokens.use_template(tokenizer, chat_template)
    if not tokenizer.chat_template:
        raise WrongBaseModel(
            f"the tokenizer in {base} has no chat template",
            "pass the one that it was trained with as --chat-template, or choose an instruction-tuned model",
        )
    model = load_model(base, torch.float32 if place.device == "cpu" else torch.bfloat16, place, runs_code)
    return (model if adapter is None else with_adapter(model, adapter)), tokenizer


class Conversation:
    """What was said so far. `made` is the number of tokens of the last answer."""

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int, temperature: float = 0.0) -> None:
        self.model, self.tokenizer, self.max_tokens, self.temperature = model, tokenizer, max_tokens, temperature
        self.messages: list[Message] = []
        self.made = 0

    def say(self, text: str, write: Write) -> str:
        """The answer to `text`; `write` gets its pieces as they are made.

        Raises DatasetError if the chat template refuses the conversation, BadMessage if it is longer than the context.
        """
        import torch

        from flb_node import tokens
        from flb_node.held_out import ends

        said = [*self.messages, Message("user", text)]
        prompt = tokens.prompt_ids(self.tokenizer, said)
        most = getattr(self.model.config, "max_position_embeddings", None) or len(prompt) + self.max_tokens
        if len(prompt) >= most:
            raise BadMessage(
                f"the conversation has {len(prompt)} tokens, and the model sees {most}", "begin a new and shorter one"
            )
        ids = torch.tensor([prompt], device=self.model.device)
        sampling = (
            {"do_sample": True, "temperature": self.temperature} if self.temperature > 0 else {"do_sample": False}
        )
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(self.max_tokens, most - len(prompt)),
                eos_token_id=ends(self.model, self.tokenizer),
                pad_token_id=self.tokenizer.pad_token_id,
                streamer=_streamer(self.tokenizer, write),
                **sampling,
            )
        made = out[0, ids.shape[1] :]
        self.made = len(made)
        answer = str(self.tokenizer.decode(made, skip_special_tokens=True)).strip()
        self.messages = [*said, Message("assistant", answer)]
        return answer


def _streamer(tokenizer: Any, write: Write) -> Any:
    """transformers' own, which knows where a word ends, with `write` for print."""
    from transformers import TextStreamer

    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    streamer.on_finalized_text = lambda text, stream_end=False: write(text)
    return streamer


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _line() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
