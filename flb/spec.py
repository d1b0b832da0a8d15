# SPDX-License-Identifier: Apache-2.0
"""The run spec: everything that nodes must agree on, as canonical JSON (RFC 8785) whose SHA-256 is on chain.

A spec is read strictly: unknown, missing or mistyped fields are refused, so that two programs never read the same
digest differently.
"""

import hashlib
import json
from dataclasses import fields
from typing import Any, get_type_hints

from flb.errors import BadMessage
from flb.spec_check import check, check_scoring
from flb.spec_sections import (
    LR_SCHEDULES,
    SCORING_RULES,
    VERSION,
    AggregationSpec,
    BaseSpec,
    LoraSpec,
    PrivacySpec,
    RingSpec,
    RoundSpec,
    RunSpec,
    ScoringSpec,
    ServerOptimizerSpec,
    TrainingSpec,
)
from flb.types import Digest

__all__ = [
    "LR_SCHEDULES",
    "SCORING_RULES",
    "VERSION",
    "AggregationSpec",
    "BaseSpec",
    "LoraSpec",
    "PrivacySpec",
    "RingSpec",
    "RoundSpec",
    "RunSpec",
    "ScoringSpec",
    "ServerOptimizerSpec",
    "TrainingSpec",
    "check",
    "check_scoring",
    "decode",
    "digest_of",
]  # fmt: skip

LARGEST = 10**21
"""From here on RFC 8785 writes floats with an exponent, so no integer of a canonical text is larger."""


def digest_of(encoded: bytes) -> Digest:
    """SHA-256 of a spec's canonical bytes."""
    return Digest(hashlib.sha256(encoded).digest())


def _read(kind: Any, value: object, path: str) -> Any:
    """Read one JSON value as `kind`; raises BadMessage with the path of the field."""
    if getattr(kind, "__dataclass_fields__", None) is not None:
        if not isinstance(value, dict):
            raise BadMessage(f"run spec: {path or 'the whole'} is not an object")
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        for name in sorted(set(value) ^ set(names)):
            shown = path + name.encode("unicode_escape").decode()
            raise BadMessage(f"run spec: field {shown} is {'missing' if name in names else 'unknown'}")
        return kind(**{name: _read(hints[name], value[name], f"{path}{name}.") for name in names})
    if getattr(kind, "__origin__", None) is tuple:
        if not isinstance(value, list):
            raise BadMessage(f"run spec: {path} is not a list")
        return tuple(_read(kind.__args__[0], item, path) for item in value)
    if kind is float and type(value) is int and abs(value) < LARGEST:
        return float(value)
    if type(value) is not kind:
        raise BadMessage(f"run spec: {path} is not of type {kind.__name__}")
    return value


def decode(encoded: bytes) -> RunSpec:
    """Read and check a spec. Raises BadMessage for a wrong form, Refused for values that break the arithmetic."""
    try:
        value = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise BadMessage("run spec: not JSON", "ask the operator for the file that was deployed") from error
    version = value.get("version") if isinstance(value, dict) else None
    if type(version) is int and version != VERSION:  # before the fields, which differ from version to version
        raise BadMessage(f"run spec: version {version}, this program reads {VERSION}", "update FLB")
    spec: RunSpec = _read(RunSpec, value, "")
    try:
        canonical = spec.encode()
    except ValueError:  # NaN, an integer beyond 2^53, half a surrogate pair: JSON for Python, not for RFC 8785
        canonical = b""
    if canonical != encoded:
        raise BadMessage("run spec: not canonical JSON (RFC 8785)", "ask the operator for the file that was deployed")
    check(spec)
    return spec
