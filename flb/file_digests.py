# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of a folder's files, kept in a file beside them so that it is computed once.

A file is hashed again if its size, time, inode or time of change differs from what was noted, or if it changed less
than `SETTLED_NS` before it was hashed: within the clock's tick a later change would leave the same time. The note is an
aid, never a source of trust: damaged, missing or unwritable it costs time alone. Who can write into the folder can
forge it, and could as well change the program.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flb.store import digest_of_file, write_atomic

NOTE = ".flb-digests.json"
SETTLED_NS = 2_000_000_000
"""Coarser than the times of any usual file system."""


def digests(files: Sequence[Path]) -> dict[str, str]:
    """Digests in hex by name, of files of one folder. Raises OSError for a file that can't be read."""
    folder = files[0].parent
    noted, found = remembered(folder), dict[str, list[Any]]()
    for path in files:
        before = _stamp(path)
        old = noted.get(path.name)
        if old is not None and old[:-1] == before:
            found[path.name] = old
            continue
        now = time.time_ns()
        digest = digest_of_file(path).hex()
        settled = max(before[1], before[3]) < now - SETTLED_NS
        found[path.name] = [*(before if settled and before == _stamp(path) else [-1] * len(before)), digest]
    if found != noted:
        _write(folder, found)
    return {name: str(entry[-1]) for name, entry in found.items()}


def remembered(folder: Path) -> dict[str, list[Any]]:
    """What was noted of each file: size in bytes, time, inode, time of change (both in nanoseconds), digest in hex."""
    try:
        noted = json.loads((folder / NOTE).read_bytes())
        entries: dict[str, list[Any]] = {
            str(name): [*map(int, entry[:-1]), str(entry[-1])] for name, entry in noted.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, IndexError, KeyError, RecursionError):
        return {}
    sound = all(len(entry) == 5 and len(entry[-1]) == 64 for entry in entries.values())
    return entries if sound else {}


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns]


def _write(folder: Path, entries: dict[str, list[Any]]) -> None:
    try:
        write_atomic(folder / NOTE, json.dumps(entries, sort_keys=True).encode() + b"\n")
    except OSError:
        pass  # a folder that is only read
