# SPDX-License-Identifier: Apache-2.0
"""Tokenized once: the file gives the same tokens, and everything that decides them has a part in its name."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from flb.errors import DatasetError
from flb.types import Digest
from flb_node import preference_tokens, token_cache, tokens
from flb_node.base import load_tokenizer
from flb_node.examples import Example, Message
from flb_node.token_cache import TokenCache
from tests import tiny_model

pytestmark = pytest.mark.model

CHATS = [Example((Message("user", f"Hi {n}"), Message("assistant", "Hello " * n))) for n in range(1, 6)]
PREFERENCES = [Example(chat.messages, rejected=Message("assistant", "No")) for chat in CHATS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


def cache(folder: Path, model: Path) -> TokenCache:
    return TokenCache(folder, token_cache.tokenizer_digest(model))


@pytest.fixture
def tokenizer(model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(model)


class Silent:
    """A tokenizer that must not be asked."""

    def __init__(self, chat_template: object) -> None:
        self.chat_template, self.eos_token_id = chat_template, 0

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: object) -> list[int]:
        raise AssertionError("tokenized again")

    def encode(self, text: str) -> list[int]:
        raise AssertionError("tokenized again")


def test_encode_all__second_time__from_disk_without_the_tokenizer(
    model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first = cache(tmp_path, model).encode_all(tokenizer, CHATS, 80)
    assert first == tokens.encode_all(tokenizer, CHATS, 80)
    silent = Silent(tokenizer.chat_template)
    assert cache(tmp_path, model).encode_all(silent, CHATS, 80) == first
    with pytest.raises(AssertionError, match="tokenized again"):
        cache(tmp_path, model).encode_all(silent, CHATS, 79)


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.tuples(*[st.lists(st.integers(0, 2**31 - 1), max_size=4)] * width), min_size=1, max_size=6
        )
    )
)
def test_rows__any_lists__the_same_from_disk(rows: list[tuple[list[int], ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept = TokenCache(Path(folder), Digest(bytes(32)))
        assert kept.rows(CHATS, None, 8, "dpo", lambda: list(rows)) == rows
        assert kept.rows(CHATS, None, 8, "dpo", lambda: [([0],)]) == rows


def test_key__whatever_decides_the_tokens__another_name(model: Path, tmp_path: Path) -> None:
    digest = token_cache.tokenizer_digest(model)
    other = tmp_path / "other"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert token_cache.tokenizer_digest(other) == digest
    (other / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes() + b" ")
    changed = token_cache.tokenizer_digest(other)
    names = {
        token_cache.key(CHATS, digest, "t", 80, "sft"), token_cache.key(CHATS[1:], digest, "t", 80, "sft"),
        token_cache.key(CHATS[::-1], digest, "t", 80, "sft"), token_cache.key(CHATS, changed, "t", 80, "sft"),
        token_cache.key(CHATS, digest, "u", 80, "sft"), token_cache.key(CHATS, digest, "t", 81, "sft"),
        token_cache.key(PREFERENCES, digest, "t", 80, "sft"), token_cache.key(CHATS, digest, "t", 80, "dpo"),
    }  # fmt: skip
    assert len(names) == 8


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut", None])
def test_encode_all__damaged_file__made_again(
    damage: bytes | None, model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first = cache(tmp_path, model).encode_all(tokenizer, CHATS, 80)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    at = len(whole) // 3
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] if damage is None else damage)
    assert cache(tmp_path, model).encode_all(tokenizer, CHATS, 80) == first
    assert file.read_bytes() == whole


def test_encode_all__many_settings__newest_files_stay(
    model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    for length in range(70, 70 + token_cache.KEPT + 2):
        cache(tmp_path, model).encode_all(tokenizer, CHATS, length)
    assert len(list(tmp_path.iterdir())) == token_cache.KEPT


def test_encode_all__nothing_fits__dataset_error_and_no_file(
    model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="each of the 5 examples has a prompt of 5 tokens or more"):
        cache(tmp_path, model).encode_all(tokenizer, CHATS, 5)
    assert list(tmp_path.iterdir()) == []


def test_encode_pairs__second_time__from_disk_and_another_file_than_conversations(
    model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first = cache(tmp_path, model).encode_pairs(tokenizer, PREFERENCES, 80)
    assert first == preference_tokens.encode_all(tokenizer, PREFERENCES, 80)
    silent = Silent(tokenizer.chat_template)
    assert cache(tmp_path, model).encode_pairs(silent, PREFERENCES, 80) == first
    with pytest.raises(AssertionError, match="tokenized again"):
        cache(tmp_path, model).encode_all(silent, PREFERENCES, 80)
