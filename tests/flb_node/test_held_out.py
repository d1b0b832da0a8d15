# SPDX-License-Identifier: Apache-2.0
"""The held-out loss against the definition, whatever the batch; answers whatever their company."""

import math

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from flb.errors import DatasetError
from flb_node.base import load_model, load_tokenizer
from flb_node.data import Example, Message
from flb_node.devices import CPU
from flb_node.held_out import answer, answers, measure
from flb_node.tokens import encode_all
from tests import tiny_model

pytestmark = pytest.mark.model

SYSTEM = Message("system", "You count.")
EXAMPLES = tuple(
    Example((SYSTEM, Message("user", "x" * (1 + i * 3 % 11)), Message("assistant", "yes " * (1 + i % 5))))
    for i in range(13)
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = tiny_model.build(tmp_path_factory.mktemp("base"))
    return load_model(folder, torch.float32, CPU), load_tokenizer(folder)


def held_out_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: tuple[Example, ...],
    max_length: int,
    batch: int = 8,
) -> float:
    return measure(model, encode_all(tokenizer, examples, max_length), batch).loss


def by_definition(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: tuple[Example, ...], max_length: int
) -> float:
    """One example at a time, all logits, in float64."""
    losses = []
    for row in encode_all(tokenizer, examples, max_length):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
        predicted = torch.log_softmax(logits, -1)
        losses += [-predicted[at - 1, row.ids[at]].item() for at in range(row.start, len(row.ids))]
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("batch", [1, 4, 13, 100])
def test_measure__any_batch__the_mean_over_completion_tokens(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase], batch: int
) -> None:
    expected = by_definition(*loaded, EXAMPLES, 200)
    assert held_out_loss(*loaded, EXAMPLES, 200, batch) == pytest.approx(expected, rel=1e-6)


def test_measure__cut_short_or_without_common_prompt__the_mean_all_the_same(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    length = 65  # cuts completions, and leaves some examples out
    assert held_out_loss(*loaded, EXAMPLES, length) == pytest.approx(by_definition(*loaded, EXAMPLES, length), rel=1e-6)
    roles = tuple(Example((Message(role, "x"), EXAMPLES[i].messages[-1])) for i, role in enumerate(("user", "system")))
    assert held_out_loss(*loaded, roles, 99) == pytest.approx(by_definition(*loaded, roles, 99), rel=1e-6)
    assert held_out_loss(*loaded, roles[:1], 99) == pytest.approx(by_definition(*loaded, roles[:1], 99), rel=1e-6)


def test_measure__nothing_fits__dataset_error(loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    with pytest.raises(DatasetError):
        held_out_loss(*loaded, EXAMPLES, 5)


def test_answers__several_at_once__as_each_alone(loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    prompts = ["Hi", "A much longer prompt than that", "?"]
    together = answers(*loaded, prompts, max_new_tokens=8)
    assert together == [answer(*loaded, prompt, max_new_tokens=8) for prompt in prompts]
    assert answers(*loaded, []) == []
