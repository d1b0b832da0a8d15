# SPDX-License-Identifier: Apache-2.0
"""The one timeout of a transfer: it is given up when nothing has moved for a while, however long the whole takes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from flb.errors import AggregatorUnavailable

IDLE_SECONDS = 60.0
"""A transfer without progress for so long is given up and begun again where it stopped."""


@contextmanager
def moving(call: Any, seconds: float = IDLE_SECONDS) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Cancel a bulk call that stands still: gives the call, and what to call at each sign of progress.

    A gRPC deadline would count the whole transfer, which may take hours on a thin link.
    """
    last, over = [time.monotonic()], threading.Event()

    def watch() -> None:
        while not over.wait(min(1.0, seconds / 4)):
            if time.monotonic() - last[0] > seconds:
                call.cancel()
                return

    def moved() -> None:
        last[0] = time.monotonic()

    watcher = threading.Thread(target=watch, name="idle", daemon=True)
    watcher.start()
    try:
        yield call, moved
    except grpc.FutureCancelledError as error:
        raise AggregatorUnavailable(f"the transfer stood still for {seconds:g} s", "this node tries again") from error
    finally:
        over.set()
        watcher.join()
        call.cancel()
