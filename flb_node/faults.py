# SPDX-License-Identifier: Apache-2.0
"""What a failed call to the aggregator means: gRPC's failures become the fault tree's, here and nowhere else."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from flb.errors import (
    AggregatorUnavailable,
    BadSignature,
    Busy,
    ClockSkew,
    DigestMismatch,
    Fatal,
    FLBError,
    NotInCohort,
    Truncated,
    WrongRound,
)

PASSING = (WrongRound, Truncated, DigestMismatch, BadSignature, NotInCohort, ClockSkew)
"""Refusals that say nothing about the update itself: the aggregator may lag behind the chain, or have restarted."""

RETRY_SECONDS = 1.0
"""Wait after the aggregator or the chain was away."""

JITTER = random.SystemRandom()
"""Spreads the nodes that a limit sent away at the same moment; nothing that counts depends on it."""

CHALLENGE_SECONDS = 600
"""A challenge that ends later by this node's clock comes from a clock that is not the node's."""


@contextmanager
def translated() -> Iterator[None]:
    """No foreign exception crosses this edge."""
    try:
        yield
    except grpc.RpcError as error:
        raise fault_of(error) from error


def fault_of(error: Any) -> FLBError:
    """The fault that a gRPC failure stands for."""
    trailing = dict(error.trailing_metadata() or ())
    code = trailing.get("flb-code")
    if code is None:
        return AggregatorUnavailable(
            f"the aggregator does not answer ({error.code().name.lower()})", "check that it runs; this node tries again"
        )
    kind = by_code(code)
    if issubclass(kind, Fatal):  # fatal to the other side, not to us
        return AggregatorUnavailable(f"the aggregator is in trouble ({error.details()})", "this node tries again")
    fault = kind("")
    fault.args = (error.details(),)
    fault.what = str(error.details())
    if isinstance(fault, Busy):
        fault.retry_seconds = int(trailing.get("flb-retry-ms", 1000)) / 1000
    return fault


def by_code(code: str) -> type[FLBError]:
    """The class of a stable code, as it comes over the wire; `FLBError` for one that this version does not know."""
    found, pending = dict[str, type[FLBError]](), [FLBError]
    while pending:
        kind = pending.pop()
        found[kind.code] = kind
        pending.extend(kind.__subclasses__())
    return found.get(code, FLBError)


def check_clock(left: float) -> None:
    """Raise ClockSkew for a challenge that has `left` seconds to go, if no two right clocks could give that."""
    remedy = "set the clocks of both machines, for example by NTP"
    if left < 0:
        raise ClockSkew(f"the aggregator's challenge ended {-left:.0f} seconds ago by this node's clock", remedy)
    if left > CHALLENGE_SECONDS:
        raise ClockSkew(
            f"the aggregator's challenge ends {left:.0f} seconds from now by this node's clock, "
            f"and at most {CHALLENGE_SECONDS} are right",
            remedy,
        )


def pause_after(error: FLBError) -> float:
    """Seconds until the next try: what a busy aggregator asked for, and up to half of that more."""
    if isinstance(error, Busy):
        return error.retry_seconds * (1 + JITTER.random() / 2)
    return RETRY_SECONDS
