# SPDX-License-Identifier: Apache-2.0
"""The package `datasets` on folders in the layout of the Hub; what it refuses is one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flb.errors import DatasetError
from flb_node import hub_dataset

pytestmark = pytest.mark.model  # the package may bring torch along

README = """---
configs:
- config_name: easy
  data_files: [{split: train, path: easy.jsonl}, {split: test, path: test.jsonl}]
- config_name: hard
  data_files: hard.jsonl
---
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    published = tmp_path / "published"
    published.mkdir()
    (published / "README.md").write_text(README)
    for name in ("easy", "hard", "test"):
        lines = [json.dumps({"prompt": f"{name} {n}", "completion": "x"}) for n in range(2)]
        (published / f"{name}.jsonl").write_text("\n".join(lines))
    return str(published)


def test_read__split_and_subset__its_rows_with_places(folder: str) -> None:
    rows = list(hub_dataset.read(folder, "test", None, "easy"))
    assert [row["prompt"] for _, row in rows if isinstance(row, dict)] == ["test 0", "test 1"]
    assert str(rows[1][0]) == f"{folder} (test), row 2"


@pytest.mark.parametrize(
    ("split", "subset", "words"),
    [
        ("tset", "easy", "has no split 'tset': set dataset.split; did you mean test?"),
        (None, None, "has several subsets: set dataset.subset; choose one of easy, hard"),
        (None, "esay", "has no subset 'esay': set dataset.subset; choose one of easy, hard"),
    ],
)
def test_read__split_or_subset_that_is_not_there__named(
    folder: str, split: str | None, subset: str | None, words: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        list(hub_dataset.read(folder, split, None, subset))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_read__offline_and_not_in_the_cache__one_sentence(tmp_path: Path) -> None:
    code = (
        "from flb.errors import Unavailable\nfrom flb_node import hub_dataset\n"
        "try:\n    list(hub_dataset.read('nobody-here/nothing', None, None, None))\n"
        "except Unavailable as error:\n    print(error)"
    )
    alone = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nobody-here/nothing is no file or folder here, and the Hub can't be reached")
