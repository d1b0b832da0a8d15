# SPDX-License-Identifier: Apache-2.0
"""Where the completion begins, on the tiny model's tokenizer: one token a byte."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from flb.errors import DatasetError, WrongBaseModel
from flb_node.base import load_tokenizer
from flb_node.data import Example, Message
from flb_node.tokens import (
    IGNORED,
    check_context,
    context,
    encode,
    encode_all,
    length,
    prompt_ids,
    use_template,
)
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


def test_encode__plain_text__all_learned_and_ended_as_trl_does(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    texts = ["Once upon a time", "The end<|im_end|>"]
    model = AutoModelForCausalLM.from_pretrained(tokenizer.name_or_path)
    arguments = SFTConfig(output_dir=str(tmp_path), max_length=12, use_cpu=True, bf16=False, report_to="none")
    rows = Dataset.from_list([{"text": text} for text in texts])
    theirs = SFTTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer).train_dataset["input_ids"]
    ours = encode_all(tokenizer, [Example((), text=text) for text in texts], 12)
    assert [list(row.ids) for row in ours] == [list(ids) for ids in theirs]
    assert [row.labels for row in ours] == [(IGNORED, *row.ids[1:]) for row in ours]


def test_encode__preference__the_better_conversation(tokenizer: PreTrainedTokenizerBase) -> None:
    preference = Example(EXAMPLE.messages, rejected=Message("assistant", "No, not at all"))
    assert encode(tokenizer, preference, 100) == encode(tokenizer, EXAMPLE, 100)
    assert length(tokenizer, preference)[1] == length(tokenizer, EXAMPLE)[1] + len("No, not at all") - len("Hello")


def test_use_template__file__renders_with_it(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    plain, file = tokenizer.chat_template, tmp_path / "template.jinja"
    file.write_text("{% for message in messages %}{{ message['content'] }}|{% endfor %}")
    try:
        use_template(tokenizer, file)
        row = encode(tokenizer, EXAMPLE, 100)
        assert row is not None and tokenizer.decode(row.ids) == "Hi|Hello|"
        with pytest.raises(DatasetError, match="can't be read: set dataset.chat_template to a Jinja file"):
            use_template(tokenizer, tmp_path / "missing")
        tokenizer.chat_template = None
        with pytest.raises(DatasetError, match="has no chat template, which conversations need"):
            encode(tokenizer, EXAMPLE, 100)
        use_template(tokenizer, None)
        assert encode(tokenizer, Example((), text="Once"), 100) is not None
    finally:
        tokenizer.chat_template = plain


def test_check_context__records_longer_than_the_model_sees__dataset_error(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = Path(tokenizer.name_or_path)
    check_context(folder, 512)
    with pytest.raises(DatasetError, match=r"cuts records at 513 tokens, .* sees 512 at most: the operator sets"):
        check_context(folder, 513)
    check_context(tmp_path, 10**9)
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 8}}')
    assert context(tmp_path) == 8
    (tmp_path / "config.json").write_text('{"text_config": 3}')
    assert context(tmp_path) == 2**63
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WrongBaseModel, match="config.json is damaged"):
        context(tmp_path)
