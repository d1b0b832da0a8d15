# SPDX-License-Identifier: Apache-2.0
"""One passive compute thread for the model tests, as for a node: spinning threads make them twenty times slower."""

import sys

from flb_node.threads import configure_threads

if "torch" not in sys.modules:
    configure_threads(1, 1)
