# SPDX-License-Identifier: Apache-2.0
"""Work on pieces in several threads while the results leave in the order of the pieces.

A thread takes the next piece, works on it, and waits for its turn to hand the result over. So a digest that runs over
the output overlaps with the work, and one result for each thread is all that is held.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def in_order(
    pieces: Sequence[Piece],
    worker: Callable[[], Callable[[Piece], Result]],
    write: Callable[[Result], None],
    threads: int,
) -> None:
    """Call `write` with the result of each piece, in order and never twice at once.

    `worker` is called once in each thread and returns the function that does the work there. The first error, of
    work or of `write`, ends all threads and is raised here.
    """
    turn = threading.Condition()
    taken = written = 0
    failed: list[BaseException] = []

    def take() -> int:
        nonlocal taken
        with turn:
            taken += 1
            return len(pieces) if failed else taken - 1

    def wait_for_turn(number: int) -> bool:
        with turn:
            turn.wait_for(lambda: written == number or failed)
            return not failed

    def run() -> None:
        nonlocal written
        work = worker()
        while (number := take()) < len(pieces):
            result = work(pieces[number])
            if not wait_for_turn(number):
                return
            write(result)
            with turn:
                written += 1
                turn.notify_all()

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001  raised again below, in the caller's thread
            with turn:
                failed.append(error)
                turn.notify_all()

    others = [threading.Thread(target=guarded, name=f"in-order-{number}") for number in range(1, threads)]
    for other in others:
        other.start()
    guarded()
    for other in others:
        other.join()
    if failed:
        raise failed[0]
