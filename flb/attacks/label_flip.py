# SPDX-License-Identifier: Apache-2.0
"""Label flip: honest training on wrong answers. The update is a real one, and no norm or distance gives it away.

For classes it is y → L - 1 - y; a language model has no classes, so each question gets the answer to the next one. Of
a preference the two answers change places.
"""

from collections.abc import Sequence
from typing import TypeVar

Answer = TypeVar("Answer")


def rotated(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """Each answer goes to the question before; the first one to the last question."""
    return (*answers[1:], *answers[:1])
