# SPDX-License-Identifier: Apache-2.0
"""The dither stream: its key, its words, and that pieces join."""

import subprocess
import sys

import numpy as np
import pytest

from flb.codec import dither
from flb.delta import BLOCK
from flb.types import Address, Step
from tests.coded import KEY, NODE, RUN, STEP, draw, slow_dither

pytestmark = pytest.mark.unit


def test_stream__words__are_those_of_another_aes() -> None:
    assert [2 * int(k) + 1 for k in draw()(1000)] == [u * 2**17 for u in slow_dither(1000)]


def test_stream__pieces_of_any_size__join() -> None:
    whole, pieces = draw()(1000).copy(), draw()
    joined = [pieces(count).copy() for count in (1, 7, 32, 0, 333, 627)]
    assert np.array_equal(np.concatenate(joined), whole)
    assert draw()(BLOCK).size == BLOCK


@pytest.mark.parametrize("start", [1, 7, 8, 333])
def test_stream__from_a_word_on__goes_on_as_the_whole(start: int) -> None:
    assert np.array_equal(dither.stream(KEY, start)(100), draw()(start + 100)[start:])


def test_key_of__run_step_and_node__decide() -> None:
    other = Address(b"\x33" * 20)
    keys = {KEY, dither.key_of(other, STEP, NODE), dither.key_of(RUN, STEP, other), dither.key_of(RUN, Step(8), NODE)}
    assert len(keys) == 4 and {len(key) for key in keys} == {32}


def test_codecs__imported__load_no_cryptography() -> None:
    code = "import sys, flb.codec, flb_aggregator.pipeline; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
