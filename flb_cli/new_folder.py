# SPDX-License-Identifier: Apache-2.0
"""A folder that appears whole, under its name, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flb.errors import NotAllowedHere
from flb.store import sync_file, sync_folder


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to write into, renamed to it at the end; gone if the writing fails.

    Raises NotAllowedHere if there is something at `path` other than an empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise NotAllowedHere(f"{path} exists", "name a folder that does not")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        for written in part.rglob("*"):
            if written.is_dir():
                sync_folder(written)
            else:
                with written.open("rb") as file:
                    sync_file(file.fileno())
        sync_folder(part)
        part.replace(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
