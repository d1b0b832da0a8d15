# SPDX-License-Identifier: Apache-2.0
"""`flb dataset check`: what is wrong with a dataset, before a node commits to it and trains on it.

The whole of it is read and every finding counted, with its first places; a node would stop at the first bad row.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flb_node.census import Census, Length
    from flb_node.data import Source
    from flb_node.rows import OnBytes

LARGE = 16 << 20
"""Bytes from which on a progress bar is shown."""
FOUND = 1
"""Exit code where there is something to say."""


def add_source(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a dataset; `source` reads them."""
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="a .jsonl, .json, .csv or .parquet file, a folder of them, or owner/name",
    )
    parser.add_argument("--split", help="of a Hub dataset (default: train)")
    parser.add_argument("--revision", help="of a Hub dataset: a commit, tag or branch")
    parser.add_argument("--subset", help="of a Hub dataset that has several")
    parser.add_argument(
        "--column", action="append", default=[], type=_column, metavar="FIELD=NAME",
        help="the dataset's own name of a column, for example prompt=question; may be repeated",
    )  # fmt: skip


def _column(text: str) -> tuple[str, str]:
    from flb_node.forms import COLUMNS

    field, _, name = text.partition("=")
    if field not in COLUMNS or not name:
        raise argparse.ArgumentTypeError(f"{text!r} maps no column: give FIELD=NAME with one of {', '.join(COLUMNS)}")
    return field, name


def source(arguments: argparse.Namespace) -> "Source":
    """The dataset that the arguments name. Raises DatasetError."""
    from flb_node.data import source_of

    return source_of(
        arguments.data, split=arguments.split, revision=arguments.revision, subset=arguments.subset,
        columns=dict(arguments.column),
    )  # fmt: skip


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to `flb dataset`."""
    text = "find duplicates, empty, over-long, malformed and non-text records; exit code 1 if there is one"
    verb = verbs.add_parser("check", help=text, description=text)
    add_source(verb)
    verb.add_argument("--held-out", type=Path, metavar="DATA", help="held-out data, which must not be trained on")
    verb.add_argument("--held-out-split", metavar="SPLIT", help="of held-out data on the Hub (default: train)")
    verb.add_argument("--model", type=Path, metavar="FOLDER", help="the base model, to count tokens")
    verb.add_argument("--chat-template", type=Path, metavar="FILE", help="a Jinja file instead of the model's template")
    verb.add_argument(
        "--max-length", type=_positive, metavar="N", help="the run's training.max_length (default: 512)", default=512
    )
    verb.add_argument("--json", action="store_true", help="print the findings as JSON")
    verb.set_defaults(run=check)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of tokens: give at least 1")
    return int(text)


def check(arguments: argparse.Namespace) -> int:
    """Walk through the dataset and say what was found; 0 if nothing was."""
    from flb_node import census, data

    train = source(arguments)
    held_out = None
    if arguments.held_out:
        split = arguments.held_out_split
        held_out = data.source_of(arguments.held_out, split=split, columns=train.columns)
        if held_out.name == train.name:
            held_out = replace(train, split=split)
    length, limit = _length(arguments) if arguments.model else (None, None)
    with _progress([one for one in (train, held_out) if one is not None]) as on_bytes:
        taken = census.take(
            data.stream(train, on_bytes), data.stream(held_out, on_bytes) if held_out else (), length, limit,
        )  # fmt: skip
    if arguments.json:
        print(json.dumps(_as_json(taken)))
    else:
        _say(taken, str(train.name))
    return 0 if taken.clean else FOUND


def _length(arguments: argparse.Namespace) -> "tuple[Length, int]":
    """What counts a record's tokens, and the most that a node would take: --max-length, or less by the model."""
    from flb_node import base, tokens

    tokenizer = base.load_tokenizer(arguments.model)
    tokens.use_template(tokenizer, arguments.chat_template)
    limit = min(arguments.max_length, int(tokenizer.model_max_length), tokens.context(arguments.model))
    return lambda example: tokens.length(tokenizer, example)[1], limit


@contextmanager
def _progress(sources: list["Source"]) -> Iterator["OnBytes"]:
    """A bar on stderr while large local files are read."""
    from flb_node import rows

    files = [file for one in sources if isinstance(one.name, Path) for file in rows.files_of(one.name)]
    total = sum(file.stat().st_size for file in files)
    if total < LARGE or not sys.stderr.isatty():
        yield rows.ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    bar = Progress("checking", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    with bar:
        task = bar.add_task("checking", total=total)
        yield lambda count: bar.advance(task, count)


def _as_json(taken: "Census") -> dict[str, Any]:
    findings = {kind: {"count": one.count, "places": one.places} for kind, one in taken.findings.items()}
    return {"records": taken.records, "held_out": taken.held_out, "clean": taken.clean, "findings": findings}


def _say(taken: "Census", name: str) -> None:
    from flb_node.census import KINDS

    beside = f", {taken.held_out} held out" if taken.held_out else ""
    print(f"{name}: {taken.records} records{beside}")
    for kind, finding in taken.findings.items():
        if not finding.count:
            continue
        print(f"{finding.count} {KINDS[kind]}:")
        for place in finding.places:
            print(f"  {place}")
        if finding.count > len(finding.places):
            print(f"  and {finding.count - len(finding.places)} more")
    if not taken.records:
        print("no record can be used")
    elif taken.clean:
        print("nothing to say about any of them")
