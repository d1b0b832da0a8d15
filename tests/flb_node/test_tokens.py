# SPDX-License-Identifier: Apache-2.0
"""Where the completion begins, on the tiny model's tokenizer: one token a byte."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from flb.errors import DatasetError
from flb_node.base import load_tokenizer
from flb_node.data import Example, Message
from flb_node.tokens import IGNORED, encode, encode_all, prompt_ids
from tests import tiny_model

pytestmark = pytest.mark.model

EXAMPLE = Example((Message("user", "Hi"), Message("assistant", "Hello")))
PROMPT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model.build(tmp_path_factory.mktemp("base")))


def test_encode__example__completion_with_its_end(tokenizer: PreTrainedTokenizerBase) -> None:
    row = encode(tokenizer, EXAMPLE, 100)
    assert row is not None
    assert tokenizer.decode(row.ids[: row.start]) == PROMPT
    assert tokenizer.decode(row.ids[row.start :]) == "Hello<|im_end|>\n"
    assert row.labels == (IGNORED,) * row.start + row.ids[row.start :]


def test_encode__too_long__cut_at_the_end(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = len(prompt_ids(tokenizer, EXAMPLE.messages[:1]))
    row = encode(tokenizer, EXAMPLE, prompt + 2)
    assert row is not None
    assert tokenizer.decode(row.ids[row.start :]) == "He"
    assert encode(tokenizer, EXAMPLE, prompt) is None


def test_encode__template_that_renders_the_prompt_alone_in_another_way__completion_where_they_part(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    plain = tokenizer.chat_template
    try:
        tokenizer.chat_template = plain.replace("assistant\n' }}{% endif", "assistant\n<think>' }}{% endif")
        row = encode(tokenizer, EXAMPLE, 100)
    finally:
        tokenizer.chat_template = plain
    assert row is not None
    assert tokenizer.decode(row.ids[row.start :]) == "Hello<|im_end|>\n"


def test_encode__template_that_refuses__dataset_error(tokenizer: PreTrainedTokenizerBase) -> None:
    plain = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
        with pytest.raises(DatasetError, match="roles must alternate"):
            encode(tokenizer, EXAMPLE, 100)
    finally:
        tokenizer.chat_template = plain


def test_encode_all__some_too_long__left_out(tokenizer: PreTrainedTokenizerBase) -> None:
    long = Example((Message("user", "Hi" * 100), Message("assistant", "Hello")))
    assert len(encode_all(tokenizer, [long, EXAMPLE], 60)) == 1
    with pytest.raises(DatasetError, match="each of the 1 examples"):
        encode_all(tokenizer, [long], 60)


def test_tiny_model__same_seed__same_bytes(tmp_path: Path) -> None:
    one, two = (tiny_model.build(tmp_path / name) / "model.safetensors" for name in ("one", "two"))
    other = tiny_model.build(tmp_path / "other", seed=1) / "model.safetensors"
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
