# SPDX-License-Identifier: Apache-2.0
"""How good a model is on text that it did not train on: the loss, and its answers."""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from flb_node import tokens
from flb_node.examples import Message
from flb_node.tokens import IGNORED, Tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """How well a model predicts completions: mean negative log likelihood in nats a token, share of tokens that it would
    have chosen itself (0 to 1), and over how many tokens."""

    loss: float
    accuracy: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite where that is beyond float64."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def measure(model: PreTrainedModel, encoded: Sequence[Tokens], batch: int = 8) -> Measured:
    """Loss and accuracy over the completion tokens of at least one tokenized example; `batch` changes their rounding
    alone. The model has to be in evaluation mode."""
    return total(parts(model, encoded, batch))


def total(measured: Iterable[tuple[float, int, int]]) -> Measured:
    """The figures of all `parts` together."""
    losses, hits, counts = zip(*measured, strict=True)
    return Measured(sum(losses) / sum(counts), sum(hits) / sum(counts), sum(counts))


def parts(model: PreTrainedModel, encoded: Sequence[Tokens], batch: int = 8) -> Iterator[tuple[float, int, int]]:
    """(loss in nats, right guesses, completion tokens) of one batch after another. Between two of them the model may
    do other work, if it comes back with the same weights."""
    rows = sorted(encoded, key=lambda row: (len(row.ids), row.start))
    with torch.inference_mode():
        cache, shared = _prefix_cache(model, rows)
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        with torch.inference_mode():  # never held over a yield: it would hold for whoever asks
            loss, hits = _summed(model, chosen, cache, shared)
        yield loss, hits, sum(len(row.ids) - row.start for row in chosen)


def _prefix_cache(model: PreTrainedModel, rows: Sequence[Tokens]) -> tuple[DynamicCache | None, int]:
    """What the model keeps of the tokens that all rows begin with, and how many they are."""
    shared = _shared_prefix(rows)
    if shared:
        cache = model(
            input_ids=torch.tensor([rows[0].ids[:shared]], device=model.device), use_cache=True
        ).past_key_values
        if isinstance(cache, DynamicCache):  # state-space models keep something else
            return cache, shared
    return None, 0


def _shared_prefix(rows: Sequence[Tokens]) -> int:
    """How many tokens all rows begin with (the system prompt): computed once, they are nearly half of the work. The
    last prompt token stays outside, since it predicts the first completion token."""
    longest = min(row.start for row in rows) - 1
    first = rows[0].ids
    return next((i for i in range(longest) if any(row.ids[i] != first[i] for row in rows)), longest)


def _summed(
    model: PreTrainedModel, rows: Sequence[Tokens], cache: DynamicCache | None, shared: int
) -> tuple[float, int]:
    """Loss and right guesses of one batch, padded at the end: causal attention never looks there, so no mask is needed.

    `cache` holds the first `shared` tokens. Logits are computed only where a completion token is predicted, from one
    before the first start on.
    """
    width, start = max(len(row.ids) for row in rows), min(row.start for row in rows)
    ids = torch.tensor([[*row.ids[shared:], *(0,) * (width - len(row.ids))] for row in rows], device=model.device)
    labels = torch.tensor(
        [[*row.labels[start:], *(IGNORED,) * (width - len(row.ids))] for row in rows], device=model.device
    )
    places = torch.arange(start - 1, width - 1, device=model.device) - shared
    past = copy.deepcopy(cache)  # the model appends to what it is given
    if past is not None:
        past.batch_repeat_interleave(len(rows))
    logits = model(input_ids=ids, past_key_values=past, logits_to_keep=places, use_cache=past is not None).logits
    loss = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return float(loss), int((logits.argmax(-1) == labels).sum())


def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int = 60
) -> list[str]:
    """What the model answers to each prompt, greedily, cut after `max_new_tokens` tokens."""
    if not prompts:
        return []
    rows = [tokens.prompt_ids(tokenizer, [Message("user", prompt)]) for prompt in prompts]
    width = max(len(row) for row in rows)
    padding = tokenizer.pad_token_id
    ids = torch.tensor([[padding] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=ends(model, tokenizer),
            pad_token_id=padding,
        )
    return [str(text).strip() for text in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]


def ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens at which an answer is over: those that the model's folder names, which for many chat models are others
    than the tokenizer's (Phi-3, Llama 3.1, Gemma 2, GLM), and the tokenizer's own."""
    named = model.generation_config.eos_token_id
    found = named if isinstance(named, list) else [named]
    return sorted({int(token) for token in (*found, tokenizer.eos_token_id) if token is not None})


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int = 60) -> str:
    """One answer; several at once are faster with `answers`."""
    return answers(model, tokenizer, [prompt], max_new_tokens)[0]
