# SPDX-License-Identifier: Apache-2.0
"""Where the daemon's thread and the thread of somebody else's trainer meet, once a round.

The daemon calls `train` and waits; the training thread takes the work, trains, and gives the result. Each side hears
of the other's end instead of waiting for ever.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from flb.types import Step
from flb_node.pipeline import Tensors

Value = TypeVar("Value")


class Ended(Exception):
    """The training thread has gone: nobody will train what the daemon asks for."""


@dataclass(frozen=True, slots=True)
class Work:
    """One round's training: start from `adapter`, change the tensors named in `trainable` alone."""

    adapter: Tensors
    trainable: frozenset[str]


@dataclass(slots=True)
class Handover:
    """One value of work, or one result, at a time."""

    work: Work | None = None
    result: Tensors | None = None
    over: bool = False
    """The daemon has ended, by itself or by `error`."""
    error: BaseException | None = None
    abandoned: bool = False
    """The training thread has ended."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def train(self, adapter: Tensors, trainable: frozenset[str], seed: int, step: Step) -> Tensors:
        """The daemon's side: hand over a round and wait for its result. Raises Ended.

        `seed` and `step` go unused: order, dropout and schedule are the business of the trainer that does the work.
        """
        with self._changed:
            self.work, self.result = Work(adapter, trainable), None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.result is not None or self.abandoned)
            self.work, result = None, self.result
            self.result = None
        if result is None:
            raise Ended
        return result

    def take(self) -> Work | None:
        """The trainer's side: wait for a round; None when there are no more. Raises the error that ended the daemon.

        Asked again before the result was given, it answers with the same work.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.over or (self.work is not None and self.result is None))
            if self.error is not None:
                raise self.error
            return None if self.over else self.work

    def give(self, result: Tensors) -> None:
        """The trainer's side: what training made of the work."""
        with self._changed:
            self.result = result
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """The daemon's side: there will be no more work."""
        with self._changed:
            self.over, self.error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """The trainer's side: nobody trains any more."""
        with self._changed:
            self.abandoned = True
            self._changed.notify_all()

    def until(self, value: Callable[[], Value | None]) -> Value | None:
        """Wait until `value` is something, looked at after each `announce`; None if the daemon ended. Raises its error."""
        with self._changed:
            self._changed.wait_for(lambda: self.over or value() is not None)
            if self.error is not None:
                raise self.error
            return value()

    def announce(self) -> None:
        """Something that `until` looks at may have changed."""
        with self._changed:
            self._changed.notify_all()
