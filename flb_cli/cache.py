# SPDX-License-Identifier: Apache-2.0
"""Where things are kept that belong to no run: what cost time to make, and what must not be forgotten."""

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


def state_folder() -> Path:
    """The user's state folder of FLB, which is not to be emptied: XDG_STATE_HOME or the system's own place."""
    if os.environ.get("XDG_STATE_HOME"):
        return Path(os.environ["XDG_STATE_HOME"]) / "flb"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "flb"
    return Path.home() / ".local" / "state" / "flb"
