# SPDX-License-Identifier: Apache-2.0
"""Datasets for fine-tuning: local files or one of the Hugging Face Hub in, records out; nothing here needs torch.

A dataset is a .jsonl, .json, .csv or .parquet file, a folder of them (taken by name), or a name on the Hub. All its
rows have one form (`flb_node.forms`); other columns are ignored. Every problem is a DatasetError that names file and
line: one bad line stops the node, since a dataset that is silently shorter than its commitment would be worse.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from flb.errors import DatasetError
from flb_node import forms, hub_dataset, rows
from flb_node.examples import Example, Message, record_bytes
from flb_node.forms import Form, Unusable
from flb_node.rows import OnBytes, Place, Row

__all__ = ["Example", "Found", "Message", "Source", "read", "record_bytes", "source_of", "stream"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where records come from. `name` is a path, or a name on the Hub, for which alone `split`, `revision` and `subset`
    count; `columns` maps columns of a form to the dataset's own names."""

    name: Path | str
    split: str | None = None
    revision: str | None = None
    subset: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


class Found(NamedTuple):
    """One row: its record, or why it is none."""

    place: Place
    what: Example | Unusable


def source_of(
    name: Path, folder: Path = Path(), *, split: str | None = None, revision: str | None = None,
    subset: str | None = None, columns: Mapping[str, str] | None = None,
) -> Source:  # fmt: skip
    """The source that a setting or argument names. `folder` is what a relative name was resolved against.

    Whatever exists here is local; so is whatever is not written as owner/name, or ends like a file. The rest is a
    name on the Hub. Raises DatasetError where `split`, `revision` or `subset` is given for a local file.
    """
    mapped = dict(columns or {})
    try:
        relative = name.relative_to(folder)
    except ValueError:
        relative = name
    if name.exists() or not hub_dataset.is_name(relative.as_posix()) or relative.suffix.lower() in rows.SUFFIXES:
        for key, value in (("split", split), ("revision", revision), ("subset", subset)):
            if value is not None:
                raise DatasetError(
                    f"dataset.{key} is {value!r}, but {name} is a local dataset", f"remove {key}, or name a Hub dataset"
                )
        return Source(name, columns=mapped)
    return Source(relative.as_posix(), split, revision, subset, mapped)


def read(source: Source | Path) -> tuple[Example, ...]:
    """All records, in the order of the dataset; a folder's files in the order of their names.

    Raises DatasetError: missing, of an unknown kind, unreadable, without a record, with rows of two forms, or with a
    malformed row; MissingTool if a package that reads it is not installed.
    """
    source = source if isinstance(source, Source) else Source(source)
    records = []
    for place, what in stream(source):
        if isinstance(what, Unusable):
            raise DatasetError(f"{place}, {what.what}", what.remedy) from what
        records.append(what)
    if not records:
        raise DatasetError(f"{source.name} holds no example", forms.HINT)
    return tuple(records)


def stream(source: Source, on_bytes: OnBytes = rows.ignore) -> Iterator[Found]:
    """Every row in turn, good or not; the first good one decides the form of all. Raises DatasetError, MissingTool."""
    form: Form | None = None
    since: Place | None = None
    shape: tuple[str, ...] | None = None
    for place, row in _rows(source, on_bytes):
        if isinstance(row, Unusable):
            yield Found(place, row)
            continue
        try:
            names = tuple(row)
            if names != shape:  # most rows have the columns of the one before
                found = forms.find(names, source.columns)
                if form is not None and found != form:
                    raise Unusable(
                        f"is of the form {found.name}, but {since} is of the form {form.name}",
                        "keep one form in a dataset",
                    )
                shape, form, since = names, found, since or place
            assert form is not None
            yield Found(place, forms.record(form, row, source.columns))
        except Unusable as error:
            yield Found(place, error)


def column(source: Source, name: str) -> list[str]:
    """One column of every row as text, whether training reads it or not, in the order of `read`.

    Raises DatasetError for a row without it.
    """
    values = []
    for place, row in _rows(source, rows.ignore):
        if isinstance(row, Unusable):
            raise DatasetError(f"{place}, {row.what}", row.remedy)
        if row.get(name) is None:
            near = ", ".join(map(str, row)) or "none"
            raise DatasetError(f"{place} has no column {name!r}", f"name one that every row has; this one has {near}")
        values.append(str(row[name]))
    return values


def _rows(source: Source, on_bytes: OnBytes) -> Iterator[Row]:
    if isinstance(source.name, Path):
        for file in rows.files_of(source.name):
            yield from rows.read_file(file, on_bytes)
    else:
        yield from hub_dataset.read(source.name, source.split, source.revision, source.subset)
