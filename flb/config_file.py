# SPDX-License-Identifier: Apache-2.0
"""config.yaml to `flb.config.Config`: typed, strict, and with file and line in every refusal."""

import difflib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from flb.config import NOT_YET, POSITIVE, Config, keys
from flb.errors import ConfigError

FULL_WIDTH_COLON = "\uff1a"  # what Chinese keyboards write
Node = yaml.nodes.Node


def load(path: Path) -> Config:
    """Read a file. Relative paths in it count from its own folder. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist", "make one with flb init") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text", "check the file and its permissions") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Read a text; `path` is for messages and relative paths."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        written = text.splitlines()[line - 1 : line]
        if any(FULL_WIDTH_COLON in part for part in text.splitlines()[max(0, line - 2) : line]):
            raise _full_width(path, line) from error
        what = getattr(error, "problem", None) or "it is not YAML"
        tab = "\t" in "".join(written)
        remedy = "indent with spaces, not tabs" if tab else "correct the line"
        raise ConfigError(f"{path}, line {line}: {what}", remedy) from error
    if root is None:
        return Config()
    reader = Reader(path)
    config: Config = reader.section(Config, root, "")
    reader.check_values()
    return config


def _full_width(path: Path, line: int) -> ConfigError:
    return ConfigError(
        f"{path}, line {line}: the key ends in a full-width colon ({FULL_WIDTH_COLON})",
        "write an ordinary colon (:) and a space",
    )


class Reader:
    """Turns YAML nodes into the config's classes and remembers where each value stands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, int] = {}
        self.values: dict[str, Any] = {}

    def fail(self, line: int, what: str, remedy: str) -> ConfigError:
        """The refusal for one line."""
        return ConfigError(f"{self.path}, line {line}: {what}", remedy)

    def section(self, kind: Any, node: Node, prefix: str) -> Any:
        """One mapping of known keys."""
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            if isinstance(node, yaml.ScalarNode) and FULL_WIDTH_COLON in str(node.value):
                raise _full_width(self.path, line)
            name = prefix.rstrip(".") or "the file"
            raise self.fail(line, f"{name} is not a list of keys", "indent its keys below it, one a line")
        hints, known = get_type_hints(kind), keys(kind)
        found: dict[str, Any] = {}
        for name, value, at in self.entries(node):
            if name not in known:
                raise self.unknown(name, prefix, list(known), at)
            if name in found:
                raise self.fail(at, f"{prefix}{name} stands there twice", "keep one of them")
            self.lines[prefix + name] = at
            found[name] = self.value(hints[name], value, prefix + name)
            self.values[prefix + name] = found[name]
        return kind(**found)

    def entries(self, node: yaml.MappingNode) -> Iterator[tuple[str, Node, int]]:
        """Keys, values and lines of a mapping."""
        for key, value in node.value:
            at = key.start_mark.line + 1
            if FULL_WIDTH_COLON in str(key.value):
                raise _full_width(self.path, at)
            yield str(key.value), value, at

    def unknown(self, name: str, prefix: str, known: list[str], line: int) -> ConfigError:
        """The refusal of a key that nobody knows, with the nearest one."""
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        remedy = f"did you mean {prefix}{near[0]}?" if near else f"known here are {', '.join(known)}"
        return self.fail(line, f"unknown key {prefix}{name}", remedy)

    def value(self, kind: Any, node: Node, key: str) -> Any:
        """One value of the wanted type."""
        line = node.start_mark.line + 1
        if hasattr(kind, "__dataclass_fields__"):
            return self.section(kind, node, key + ".")
        if isinstance(node, yaml.ScalarNode) and FULL_WIDTH_COLON in str(node.value) and "\n" in str(node.value):
            raise _full_width(self.path, line)
        options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
        try:
            plain = yaml.SafeLoader("").construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise self.fail(line, f"{key} is {getattr(node, 'value', '')!r}", "write a plain value") from error
        for option in options:
            accepted, result = self.accept(option, plain)
            if accepted:
                return result
        raise self.fail(line, f"{key} is {plain!r}", f"give {' or '.join(_words(option) for option in options)}")

    def accept(self, option: Any, plain: Any) -> tuple[bool, Any]:
        """Whether a plain YAML value is of one type, and the value as that type."""
        if option is type(None):
            return plain is None, None
        if get_origin(option) is Literal:
            return plain in get_args(option), plain
        if get_origin(option) is tuple:
            good = isinstance(plain, list) and bool(plain) and all(type(item) is str for item in plain)
            return good, tuple(plain) if good else None
        if option is Path:
            return type(plain) is str and bool(plain), self.resolved(plain)
        if option is float:
            return _number(plain)
        return type(plain) is option, plain

    def resolved(self, plain: Any) -> Path | None:
        """A path, relative to the file's folder."""
        return self.path.parent / Path(plain).expanduser() if isinstance(plain, str) else None

    def check_values(self) -> None:
        """What a type cannot say."""
        for key, (allowed, why) in NOT_YET.items():
            if key in self.values and self.values[key] != allowed:
                raise ConfigError(f"{self.path}, line {self.lines[key]}: {why}")
        for key in POSITIVE:
            value = self.values.get(key)
            if value is not None and value < 1:
                raise self.fail(self.lines[key], f"{key} is {value}", "give at least 1")
        for key, low, high in (("run.fraction", 0.0, 1.0), ("lora.dropout", -1e-9, 1.0)):
            value = self.values.get(key)
            if value is not None and not low < value <= high:
                raise self.fail(self.lines[key], f"{key} is {value}", "give a number from 0 to 1")
        for key in ("run.value_bound", "run.norm_bound"):
            value = self.values.get(key)
            if isinstance(value, int) and (value < 1 or value & (value - 1)):
                raise self.fail(self.lines[key], f"{key} is {value}", "give a power of two")
        for key in ("training.learning_rate", "run.server_optimizer.learning_rate"):
            value = self.values.get(key)
            if value is not None and not 0 <= value < float("inf"):
                raise self.fail(self.lines[key], f"{key} is {value}", "give a number of 0 or more")
        for key, value in self.values.items():
            if type(value) is int and value >= 2**32:
                raise self.fail(self.lines[key], f"{key} is {value}", "give a number below 2^32")
        for key in ("training.seed", "run.confirmations", "run.grace_seconds"):
            if self.values.get(key, 0) < 0:
                raise self.fail(self.lines[key], f"{key} is {self.values[key]}", "give 0 or more")
        for key in ("chain.run", "chain.factory"):
            value = self.values.get(key)
            if value is not None and not _is_address(value):
                raise self.fail(
                    self.lines[key], f"{key} is {value!r}", "give an address: 0x and 40 hex digits, in quotes"
                )


def _number(plain: Any) -> tuple[bool, Any]:
    """YAML reads 1e-3 as text; people mean the number."""
    if type(plain) in (int, float):
        return True, float(plain)
    try:
        return type(plain) is str, float(plain)
    except (TypeError, ValueError):
        return False, None


def _is_address(value: str) -> bool:
    return len(value) == 42 and value.startswith("0x") and all(c in "0123456789abcdefABCDEF" for c in value[2:])


def _words(option: Any) -> str:
    if get_origin(option) is Literal:
        return " or ".join(str(choice) for choice in get_args(option))
    if get_origin(option) is tuple:
        return "a list of names"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return words.get(option, "null")
