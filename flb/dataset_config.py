# SPDX-License-Identifier: Apache-2.0
"""The settings of this node's data, a section of `flb.config.Config`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _setting(text: str) -> Any:
    """A field that is null by default, with its comment."""
    return field(default=None, metadata={"text": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsConfig:
    """What the dataset calls the columns of a form; null: as the key. One form is meant by its keys."""

    prompt: str | None = _setting("what the model is asked: a text, or a list of messages")
    completion: str | None = _setting("what it should answer")
    messages: str | None = _setting("a whole conversation, a list of {role, content}")
    instruction: str | None = _setting("what the model is asked, before its input")
    input: str | None = _setting("what the instruction is about; may be empty or missing")
    output: str | None = _setting("what it should answer to instruction and input")
    chosen: str | None = _setting("the better answer to a prompt, for DPO")
    rejected: str | None = _setting("the worse answer")
    text: str | None = _setting("plain text to learn as it is, without a chat template")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """This node's data where dataset_name does not say enough."""

    name: Path | None = _setting(
        "a file, a folder or owner/name on the Hugging Face Hub; dataset_name is its short form"
    )
    split: str | None = _setting("of a Hub dataset; null: train")
    revision: str | None = _setting("of a Hub dataset: a commit, tag or branch; null: its main branch")
    subset: str | None = _setting("of a Hub dataset that has several")
    chat_template: Path | None = _setting("a Jinja file to use instead of the base model's chat template")
    columns: ColumnsConfig = field(default_factory=ColumnsConfig, metadata={"text": ""})
