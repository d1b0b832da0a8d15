# SPDX-License-Identifier: Apache-2.0
"""The dataset that a config.yaml names, in the short form and the long one."""

from pathlib import Path

import pytest

from flb.config_file import parse
from flb.errors import ConfigError
from flb_node.data import Source
from flb_node.dataset_source import of_config

pytestmark = pytest.mark.unit

HERE = Path("/somewhere/config.yaml")


def source(text: str) -> Source:
    return of_config(parse(text, HERE), HERE.parent)


def test_of_config__short_and_long_form__same_source() -> None:
    local = Source(Path("/somewhere/data.csv"))
    assert source("dataset_name: data.csv\n") == source("dataset:\n  name: data.csv\n") == local
    assert source("dataset_name: owner/name\n") == Source("owner/name")


def test_of_config__every_key__in_the_source() -> None:
    text = "dataset: {name: owner/name, split: test, revision: v1, subset: easy, columns: {prompt: q, completion: a}}\n"
    assert source(text) == Source("owner/name", "test", "v1", "easy", {"prompt": "q", "completion": "a"})
    mixed = source("dataset_name: owner/name\ndataset:\n  split: test\n")
    assert mixed == Source("owner/name", "test")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}\n", "dataset_name is not set"),
        ("dataset_name: a.csv\ndataset:\n  name: b.csv\n", "both name the data"),
        (
            "dataset:\n  columns:\n    promt: q\n",
            "unknown key dataset.columns.promt: did you mean dataset.columns.prompt",
        ),
    ],
)
def test_of_config__no_dataset_two_or_a_misspelt_column__config_error(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        source(text)
