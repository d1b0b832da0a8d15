# SPDX-License-Identifier: Apache-2.0
"""Pairs of completions for DPO as token ids: a shared prompt, the chosen and the rejected completion.

The same rule as for one completion (`flb_node.tokens`): both conversations are rendered whole, the completion begins
where prompt and conversation part, and what is over `max_length` is cut off at the end.
"""

from collections.abc import Sequence

from flb.errors import DatasetError
from flb_node import tokens
from flb_node.data import Example
from flb_node.tokens import ChatTokenizer

Row = dict[str, list[int]]
"""prompt_ids, chosen_ids and rejected_ids, as trl's DPOTrainer names them."""
COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


def encode(tokenizer: ChatTokenizer, example: Example, max_length: int) -> Row | None:
    """Token ids of one pair, an example with an answer `rejected`; None if the prompt alone fills `max_length`."""
    assert example.rejected is not None, "a pair has an answer that is worse"
    chosen = tokens.encode(tokenizer, Example(example.messages), max_length)
    rejected = tokens.encode(tokenizer, Example((*example.messages[:-1], example.rejected)), max_length)
    if chosen is None or rejected is None:
        return None
    start = min(chosen.start, rejected.start)
    return {
        "prompt_ids": list(chosen.ids[:start]),
        "chosen_ids": list(chosen.ids[start:]),
        "rejected_ids": list(rejected.ids[start:]),
    }


def encode_all(tokenizer: ChatTokenizer, examples: Sequence[Example], max_length: int) -> list[Row]:
    """All pairs that fit, in their order. Raises DatasetError if one is no pair, or none fits."""
    for number, example in enumerate(examples, start=1):
        if example.rejected is None:
            raise DatasetError(
                f"example {number} has no rejected answer, and the run trains with DPO",
                'write {"prompt": "...", "chosen": "...", "rejected": "..."}',
            )
    rows = [row for example in examples if (row := encode(tokenizer, example, max_length)) is not None]
    if not rows:
        raise DatasetError(
            f"each of the {len(examples)} pairs has a prompt of {max_length} tokens or more",
            "shorten the prompts, or join a run with a larger training.max_length",
        )
    return rows
