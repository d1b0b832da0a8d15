# SPDX-License-Identifier: Apache-2.0
"""`flb init`: write a config.yaml in which every key stands with its default and what it means."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from flb.config import Config, text_of
from flb.errors import ConfigError


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    text = "write a commented config.yaml with every default"
    parser = subparsers.add_parser("init", help=text, description=text)
    parser.add_argument("file", nargs="?", default="config.yaml", help="where to write it (default: config.yaml)")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    parser.add_argument("--json", action="store_true", help="print the path as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    path = Path(arguments.file)
    if path.exists() and not arguments.force:
        raise ConfigError(f"{path} exists", "choose another name, or pass --force to overwrite it")
    path.write_text(render(), encoding="utf-8")
    print(json.dumps({"config": str(path)}) if arguments.json else f"wrote {path}")
    return 0


def render() -> str:
    """The text of the file; reading it back gives the defaults."""
    head = "# Settings of an FLB federation. Every key shows its default; what you leave out keeps it.\n"
    return head + "\n".join(_lines(Config(), "")) + "\n"


def _lines(section: Any, indent: str) -> Iterator[str]:
    for item in fields(section):
        value = getattr(section, item.name)
        if hasattr(value, "__dataclass_fields__"):
            summary = (type(value).__doc__ or "").strip()
            yield f"{'' if indent else chr(10)}{indent}# {summary}"
            yield f"{indent}{item.name}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{item.name}: {_yaml(value)}  # {text_of(item)}"


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    return str(value)
