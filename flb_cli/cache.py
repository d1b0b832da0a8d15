# SPDX-License-Identifier: Apache-2.0
"""Where things are kept that cost time to make and belong to no run."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder of FLB: XDG_CACHE_HOME or the system's own place."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "flb"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "flb"
    return Path.home() / ".cache" / "flb"
