# SPDX-License-Identifier: Apache-2.0
"""config.yaml to `flb.config.Config`: typed, strict, and with file and line in every refusal."""

import difflib
import math
import re
import types
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from flb.config import AMOUNTS, AT_LEAST_ZERO, AT_MOST, POSITIVE, Config, keys
from flb.errors import ConfigError

FULL_WIDTH_COLON = "\uff1a"  # what Chinese keyboards write
FULL_WIDTH_KEY = re.compile(rf"\s*\w+\s*{FULL_WIDTH_COLON}", re.ASCII)
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
"""YAML 1.1 has more: 010 is 8 there, and 1:30 is 90. Nobody means that."""
TEXT, DATE, NULL = (f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "null"))
Node = yaml.nodes.Node
REMOTE_CODE = (
    ("name", re.compile(r"[\w.-]+/[\w.-]+", re.ASCII), "give the repository, owner/name"),
    ("revision", re.compile(r"[0-9a-f]{40}"), "give the commit, 40 hex digits; flb model pull prints it"),
)
"""What names code that may run: its key, form and remedy."""


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
    for line, written in enumerate(text.splitlines(), 1):
        if FULL_WIDTH_KEY.match(written):  # before YAML, which would see a text that goes on, and complain further down
            raise _full_width(path, line)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError as error:
        raise ConfigError(f"{path}, line 1: it is nested too deeply", "write sections of keys and values") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        written = "".join(text.splitlines()[line - 1 : line])
        what = getattr(error, "problem", None) or "it is not YAML"
        remedy = "indent with spaces, not tabs" if "\t" in written else "correct the line"
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
        if node.tag == NULL and prefix:
            return kind()  # every key below it is left out
        if not isinstance(node, yaml.MappingNode):
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
            if not isinstance(key, yaml.ScalarNode):
                raise self.fail(at, "a key is not a word", "write name: value")
            if FULL_WIDTH_COLON in str(key.value):
                raise _full_width(self.path, at)
            yield str(key.value), value, at

    def unknown(self, name: str, prefix: str, known: list[str], line: int) -> ConfigError:
        """The refusal of a key that nobody knows, with the nearest one."""
        every = list(_every_key(Config, ""))
        if prefix + name in every:
            above, _, below = name.rpartition(".")
            return self.fail(line, f"unknown key {prefix}{name}", f"write {above}: and below it, indented, {below}:")
        elsewhere = [key for key in every if key.rpartition(".")[2] == name]
        near = [prefix + key for key in difflib.get_close_matches(name, known, n=1, cutoff=0.5)]
        meant = " or ".join(elsewhere or near)
        remedy = f"did you mean {meant}?" if meant else f"known here are {', '.join(known)}"
        return self.fail(line, f"unknown key {prefix}{name}", remedy)

    def value(self, kind: Any, node: Node, key: str) -> Any:
        """One value of the wanted type."""
        line = node.start_mark.line + 1
        if hasattr(kind, "__dataclass_fields__"):
            return self.section(kind, node, key + ".")
        options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
        if isinstance(node, yaml.MappingNode):
            for option in options:
                if hasattr(option, "__dataclass_fields__"):
                    return self.section(option, node, key + ".")
        written = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        try:
            plain = yaml.SafeLoader("").construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise self.fail(
                line, f"{key} is {_short(repr(written) if written else 'no list')}", "write a plain value"
            ) from error
        for option in options:
            accepted, result = self.accept(option, plain, written, node.tag)
            if accepted:
                return result
        seen = _short(written if written and node.tag != TEXT else repr(plain))
        raise self.fail(line, f"{key} is {seen}", f"give {' or '.join(_words(option) for option in options)}")

    def accept(self, option: Any, plain: Any, written: str, tag: str) -> tuple[bool, Any]:
        """Whether a value is of one type, and the value as that type.

        `plain` is what YAML makes of it, `written` how a scalar stands in the file: YAML reads a bare `off` as false,
        a bare address as a number, a bare 2026-01-02 as a day and 1e-3 as a text.
        """
        if option is type(None):
            return plain is None, None
        if get_origin(option) is Literal:
            chosen = {str(choice): choice for choice in get_args(option)}
            return written in chosen, chosen.get(written)
        if get_origin(option) is tuple:
            kind = get_args(option)[0]
            good = isinstance(plain, list) and bool(plain) and all(type(item) is kind for item in plain)
            return good, tuple(plain) if good else None
        if option in (str, Path):
            good = bool(written) and (tag in (TEXT, DATE) or written.startswith("0x"))
            return (good, written) if option is str or not good else self.resolved(written)
        if option is float:
            return _number(written)
        if option is int:
            return type(plain) is int and bool(WHOLE.fullmatch(written)), plain
        return type(plain) is option, plain

    def resolved(self, written: str) -> tuple[bool, Path | None]:
        """A path, relative to the file's folder; False where ~ names nobody's home."""
        try:
            return True, self.path.parent / Path(written).expanduser()
        except RuntimeError:
            return False, None

    def check_values(self) -> None:
        """What a type cannot say."""
        for key in POSITIVE:
            value = self.values.get(key)
            if isinstance(value, int) and value < 1:
                raise self.fail(self.lines[key], f"{key} is {value}", "give at least 1")
        fraction, dropout = self.values.get("run.fraction"), self.values.get("lora.dropout")
        if fraction is not None and not 0 < fraction <= 1:
            raise self.fail(
                self.lines["run.fraction"], f"run.fraction is {fraction}", "give a number above 0, at most 1"
            )
        if dropout is not None and not 0 <= dropout < 1:
            raise self.fail(self.lines["lora.dropout"], f"lora.dropout is {dropout}", "give a number from 0 to below 1")
        share = self.values.get("client.held_out")
        if isinstance(share, float) and not 0 < share < 1:
            raise self.fail(
                self.lines["client.held_out"], f"client.held_out is {share:g}", "give a number from above 0 to below 1"
            )
        for key in ("run.value_bound", "run.norm_bound"):
            value = self.values.get(key)
            if isinstance(value, int) and (value < 1 or value & (value - 1)):
                raise self.fail(self.lines[key], f"{key} is {value}", "give a power of two")
        for key in (
            "client.clip_norm", "client.target_epsilon", "privacy.clip_norm", "privacy.target_epsilon",
            "privacy.noise_multiplier", "privacy.rate", "privacy.bits_noise",
        ):  # fmt: skip
            value = self.values.get(key)
            if isinstance(value, float) and value <= 0:
                raise self.fail(self.lines[key], f"{key} is {value:g}", "give a number above 0")
        for key in ("client.delta", "privacy.delta", "privacy.quantile"):
            value = self.values.get(key)
            if value is not None and not 0 < value < 1:
                raise self.fail(self.lines[key], f"{key} is {value:g}", "give a number between 0 and 1")
        for key in ("training.learning_rate", "run.server_optimizer.learning_rate"):
            value = self.values.get(key)
            if value is not None and value < 0:
                raise self.fail(self.lines[key], f"{key} is {value}", "give a number of 0 or more")
        for key, value in self.values.items():
            bits = 256 if key in AMOUNTS else 32
            if type(value) is int and value >= 2**bits:
                raise self.fail(self.lines[key], f"{key} is {value}", f"give a number below 2^{bits}")
        for key in AT_LEAST_ZERO:
            if (self.values.get(key) or 0) < 0:
                raise self.fail(self.lines[key], f"{key} is {self.values[key]}", "give 0 or more")
        for key, most in AT_MOST.items():
            if (self.values.get(key) or 0) > most:
                raise self.fail(self.lines[key], f"{key} is {self.values[key]}", f"give at most {most:,.0f}")
        for name, pattern, form in REMOTE_CODE:
            key = f"model.trust_remote_code.{name}"
            if self.values.get("model.trust_remote_code") and not pattern.fullmatch(self.values.get(key, "")):
                raise self.fail(
                    self.lines["model.trust_remote_code"], f"{key} is {self.values.get(key, 'not set')}", form
                )
        for key in ("chain.run", "chain.factory", "client.node", "client.payee", "run.admitter", "run.payout.token"):
            value = self.values.get(key)
            if value is not None and not _is_address(value):
                raise self.fail(self.lines[key], f"{key} is {value!r}", "give an address: 0x and 40 hex digits")


def _every_key(kind: Any, prefix: str) -> Iterator[str]:
    """All settings with their sections in front."""
    for item in fields(kind):
        if hasattr(item.default_factory, "__dataclass_fields__"):
            yield from _every_key(item.default_factory, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name


def _number(written: str) -> tuple[bool, float | None]:
    """A finite number, in the ways that people write it."""
    try:
        value = float(written)
    except ValueError:
        return False, None
    return math.isfinite(value), value


def _is_address(value: str) -> bool:
    return len(value) == 42 and value.startswith("0x") and all(c in "0123456789abcdefABCDEF" for c in value[2:])


def _short(text: str) -> str:
    """A refused value, cut to the length of a sentence."""
    return text if len(text) <= 60 else text[:57] + "..."


def _words(option: Any) -> str:
    if get_origin(option) is Literal:
        return " or ".join(str(choice) for choice in get_args(option))
    if get_origin(option) is tuple:
        return "a list of names" if get_args(option)[0] is str else "a list of whole numbers"
    if hasattr(option, "__dataclass_fields__"):
        return f"{{{', '.join(f'{name}: ...' for name in keys(option))}}}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return words.get(option, "null")
