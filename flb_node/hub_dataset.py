# SPDX-License-Identifier: Apache-2.0
"""A dataset of the Hugging Face Hub, through the package `datasets`: fetched once, kept in its cache, read from disk.

Without a network, or with HF_HUB_OFFLINE=1, what was fetched before is used. No code of a dataset is run: that package
refuses to.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from flb.errors import DatasetError, MissingTool, Unavailable
from flb_node.rows import Place, Row

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
DEFAULT_SPLIT = "train"


def is_name(text: str) -> bool:
    """Whether a text may be a name on the Hub: owner/name. Shorter ones are not, so that a misspelt folder stays here."""
    return bool(NAME.fullmatch(text)) and len(text) <= 200


def read(name: str, split: str | None, revision: str | None, subset: str | None) -> Iterator[Row]:
    """The rows in their order. Raises DatasetError, MissingTool, or Unavailable when the Hub is away."""
    table = _load(name, split or DEFAULT_SPLIT, revision, subset)
    shown = f"{name} ({split or DEFAULT_SPLIT})"
    for number, row in enumerate(table, start=1):
        yield Place(shown, "row", number), row


def _load(name: str, split: str, revision: str | None, subset: str | None) -> Any:
    try:
        import datasets
        from datasets.exceptions import DatasetNotFoundError, DatasetsError
    except ImportError as error:
        raise MissingTool("a dataset of the Hub needs the package datasets", "pip install 'flb[node]'") from error
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, subset, split=split, revision=revision)
    except DatasetNotFoundError as error:
        raise DatasetError(
            f"{name} is neither a file or folder here nor a dataset of the Hub that this account may read",
            "check the spelling, or log in with hf auth login",
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise Unavailable(
            f"{name} is no file or folder here, and the Hub can't be reached to look for it there",
            "check the spelling, connect once to fetch it, or name a local file",
        ) from error
    except (DatasetsError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise _refused(name, split, subset, error) from error


def _refused(name: str, split: str, subset: str | None, error: Exception) -> DatasetError:
    """What `datasets` says, which has no classes for it, as one of ours."""
    said = " ".join(str(error).split())
    if said.startswith("Unknown split"):
        known = re.findall(r"[\"']([\w.-]+)[\"']", said.partition("one of")[2])
        close = difflib.get_close_matches(split, known, n=1, cutoff=0.5)
        meant = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}"
        return DatasetError(f"{name} has no split {split!r}", f"set dataset.split; {meant}")
    if "Config name is missing" in said or "BuilderConfig" in said:
        known = re.findall(r"'([\w.-]+)'", said.partition("[")[2].partition("]")[0])
        listed = f"; choose one of {', '.join(known[:12])}" if known else ""
        what = "has several subsets" if subset is None else f"has no subset {subset!r}"
        return DatasetError(f"{name} {what}", f"set dataset.subset{listed}")
    return DatasetError(
        f"{name} can't be loaded ({said[:200].rstrip('.') or type(error).__name__})",
        "try another revision, or fetch its files and name the folder",
    )
