# SPDX-License-Identifier: Apache-2.0
"""How an adapter is measured with the node's loaded model: put in place, judged, and the model given back as it was."""

import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from flb.delta import Float32
from flb.errors import DatasetError, MissingTool
from flb.lora.parts import split, trained
from flb_node import adapter_weights, frozen_part, held_out, tokens
from flb_node.adapter_weights import Weights
from flb_node.evaluation import Figures, HeldOut, Measure

BATCH = 4
"""Examples at a time: what a round may have to wait for."""
Judge = Callable[[Any, PreTrainedTokenizerBase], Figures]
"""A model with its adapter, and its tokenizer, to further figures."""


def measure_with(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    weights: Weights,
    examples: HeldOut,
    max_length: int,
    judge: Judge | None = None,
) -> Measure | None:
    """The function that measures adapters on this model; None where there is nothing to measure on.

    Texts are tokenized here, once. Raises DatasetError for a set of which no example fits `max_length` tokens.
    """
    sets = {
        name: _encoded(name, tokenizer, chosen, max_length)
        for name, chosen in (("held_out", examples.own), ("shared", examples.shared))
        if chosen
    }
    if not sets and judge is None:
        return None

    def measure(adapter: Mapping[str, Float32]) -> Iterator[Figures | None]:
        found: Figures = {}
        used = 0.0
        whole = split(adapter, adapter_weights.rank_of(weights))

        def once(work: Callable[[], Any]) -> Any:
            nonlocal used
            start, was_training = time.perf_counter(), model.training
            with adapter_weights.in_place_of(weights, trained(whole)), frozen_part.in_place_of(model, whole):
                model.eval()
                try:
                    return work()
                finally:
                    model.train(was_training)
                    used += time.perf_counter() - start

        for name, rows in sets.items():
            batches, done = held_out.parts(model, rows, BATCH), []
            while (part := once(partial(next, batches, None))) is not None:
                done.append(part)
                yield None
            found[name] = figures(held_out.total(done))
        if judge is not None:
            found["lm_eval"] = once(lambda: judge(model, tokenizer))
        if "shared" in found and examples.shared_digest:
            found["shared"]["file"] = examples.shared_digest
        yield {**found, "seconds": round(used, 3)}

    return measure


def figures(measured: held_out.Measured) -> Figures:
    """As they stand in metrics.jsonl, which is JSON and has no infinity."""
    perplexity = measured.perplexity if math.isfinite(measured.perplexity) else 1e308
    return {"loss": measured.loss, "perplexity": perplexity, "accuracy": measured.accuracy, "tokens": measured.tokens}


def _encoded(
    name: str, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Any], max_length: int
) -> Sequence[tokens.Tokens]:
    try:
        return tokens.encode_all(tokenizer, examples, max_length)
    except DatasetError as error:
        raise DatasetError(f"client.{'shared_' * (name == 'shared')}held_out: {error.what}", error.remedy) from error


def require_lm_eval(tasks: Sequence[str] | None) -> None:
    """Raise MissingTool if tasks of lm-eval are wanted and it is not installed."""
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise MissingTool(
            f"client.lm_eval_tasks names {', '.join(tasks)}, and the package lm_eval is not installed",
            "install it with pip install lm_eval, or remove client.lm_eval_tasks",
        )


def lm_eval_judge(tasks: Sequence[str] | None, limit: int) -> Judge | None:
    """Measures a model on tasks of lm-eval, at most `limit` documents of each; None without tasks.

    Raises MissingTool; DatasetError for a task that lm-eval does not know or whose data is not on this machine.
    """
    require_lm_eval(tasks)
    if not tasks:
        return None

    def judge(model: Any, tokenizer: PreTrainedTokenizerBase) -> Figures:
        harness = importlib.import_module("lm_eval")
        wrapper = importlib.import_module("lm_eval.models.huggingface").HFLM
        try:
            answer = harness.simple_evaluate(
                model=wrapper(pretrained=model, tokenizer=tokenizer), tasks=list(tasks), limit=limit, bootstrap_iters=0,
                random_seed=None, numpy_random_seed=None, torch_random_seed=None,  # those of training stay as they are
            )  # fmt: skip
        except (KeyError, ValueError, OSError) as error:
            reason = str(error.args[0] if error.args else error).splitlines()[0]
            raise DatasetError(
                f"lm-eval can't run {', '.join(tasks)} ({reason})",
                "name tasks that lm-eval lists and whose data is on this machine in client.lm_eval_tasks",
            ) from error
        return {
            task: {name: value for name, value in result.items() if isinstance(value, int | float)}
            for task, result in answer["results"].items()
        }

    return judge
