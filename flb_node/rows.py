# SPDX-License-Identifier: Apache-2.0
"""Rows of local files, one at a time: JSON lines, JSON, CSV and Parquet; memory stays flat however large a file is.

A row that cannot be read is an answer too, with its place, so that a check can list all of them while training stops
at the first.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flb.errors import DatasetError, MissingTool
from flb_node import json_stream
from flb_node.forms import Unusable

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
LISTED = "a .jsonl, .json, .csv or .parquet file"
OnBytes = Callable[[int], None]
"""Called with how many bytes of a file were read since the last call."""
PARQUET_ROWS = 512
"""Rows of a Parquet file in memory at once."""
LONGEST_LINE = 1 << 28
"""Bytes of a line of JSON lines: what has no line breaks is no such file, and would fill the memory."""
LONGEST_FIELD = 1 << 24
"""Characters of a CSV field; a quote that is never closed ends there."""
UTF8 = "save the file in UTF-8"


class Place(NamedTuple):
    """Where a row stands: file, and its line, row or record counted from 1."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


Row = tuple[Place, Mapping[str, Any] | Unusable]


def ignore(count: int) -> None:
    """An `OnBytes` for nobody."""


def files_of(path: Path) -> list[Path]:
    """The files of a dataset: `path` itself, or those of the folder in the order of their names. Raises DatasetError."""
    if not path.exists():
        raise DatasetError(f"the dataset {path} does not exist", f"set dataset_name to {LISTED}, or a folder of them")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise DatasetError(f"the folder {path} holds no dataset", f"put {LISTED} there")
        return files
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"the dataset {path} is not {LISTED}", "convert it to JSON lines, one object a line")
    return [path]


def read_file(file: Path, on_bytes: OnBytes = ignore) -> Iterator[Row]:
    """The rows of one file in its order. Raises DatasetError if it cannot be opened, MissingTool without pyarrow."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    try:
        yield from readers[file.suffix.lower()](file, on_bytes)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(f"the dataset {file} can't be read ({reason})", "check its owner and permissions") from error


def _jsonl(file: Path, on_bytes: OnBytes) -> Iterator[Row]:
    with file.open("rb") as opened:
        lines = iter(lambda: opened.readline(LONGEST_LINE), b"")
        for number, line in enumerate(lines, start=1):
            on_bytes(len(line))
            if len(line) == LONGEST_LINE:
                yield Place(str(file), "line", number), Unusable("is too long", "write one JSON object a line")
                return
            # Editors on Windows begin a file with a byte order mark, which JSON forbids.
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if text.strip():
                yield Place(str(file), "line", number), _object(text)


def _object(line: bytes) -> Mapping[str, Any] | Unusable:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Unusable("is not UTF-8", UTF8)
    except (ValueError, RecursionError):
        return Unusable("is not JSON", "write one JSON object a line")
    return value if isinstance(value, dict) else Unusable("is not a JSON object", "write one JSON object a line")


def _json(file: Path, on_bytes: OnBytes) -> Iterator[Row]:
    """A list of objects; a .json file that begins with an object holds JSON lines, as many published ones do."""
    with file.open("rb") as opened:
        head = opened.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    if not head.startswith(b"["):
        yield from _jsonl(file, on_bytes)
        return
    number = 0
    try:
        for number, value in enumerate(json_stream.items(file, on_bytes), start=1):
            wrong = Unusable("is not a JSON object", "write a list of JSON objects")
            yield Place(str(file), "record", number), value if isinstance(value, dict) else wrong
    except UnicodeDecodeError:
        yield Place(str(file), "record", number + 1), Unusable("is not UTF-8", UTF8)
    except (ValueError, RecursionError):
        yield Place(str(file), "record", number + 1), Unusable("is not JSON", "write a list of JSON objects")


def _csv(file: Path, on_bytes: OnBytes) -> Iterator[Row]:
    def lines() -> Iterator[str]:
        with file.open("rb") as opened:
            for number, line in enumerate(opened):
                on_bytes(len(line))
                yield (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).decode("utf-8")

    csv.field_size_limit(LONGEST_FIELD)  # the module's own would refuse a text of 128 KiB
    reader = csv.DictReader(lines(), strict=True)
    place = Place(str(file), "line", 1)
    while True:
        try:
            width = len(reader.fieldnames or ())  # reads the header
            place = Place(str(file), "line", reader.line_num + 1)
            row = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError:
            yield place, Unusable("is not UTF-8", UTF8)
            return
        except csv.Error as error:
            yield place, Unusable(f"is not CSV ({error})", "quote fields that hold commas, quotes or line breaks")
            return
        if None in row:
            extra = Unusable(f"has more than the {width} fields of the header", "quote fields that hold commas")
            yield place, extra
        elif None in row.values():
            yield place, Unusable(f"has fewer than the {width} fields of the header", "complete or remove the line")
        else:
            yield place, row


def _parquet(file: Path, on_bytes: OnBytes) -> Iterator[Row]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingTool("reading Parquet needs the package pyarrow", "pip install 'flb[node]'") from error
    number, size = 0, file.stat().st_size
    with file.open("rb") as opened:  # so that what the operating system refuses is told from what is not Parquet
        try:
            table = parquet.ParquetFile(opened)
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Place(str(file), "row", number), row
                on_bytes(size * batch.num_rows // max(table.metadata.num_rows, 1))
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            broken = Unusable("is not Parquet, or is damaged", "fetch or write the file again")
            yield Place(str(file), "row", number + 1), broken
