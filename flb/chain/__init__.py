# SPDX-License-Identifier: Apache-2.0
"""The registry on an EVM chain: reading its events, sending transactions, and a local chain."""

import sys
from importlib import import_module
from importlib.util import find_spec

# eth-account brings py_ecc, which on import lifts the recursion limit to 100,000 frames; a peer's deeply nested JSON would
# then end the process with a segmentation fault instead of RecursionError. Import it first and put the limit back.
_limit = sys.getrecursionlimit()
if find_spec("py_ecc"):
    import_module("py_ecc")
sys.setrecursionlimit(_limit)
