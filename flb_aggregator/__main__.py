# SPDX-License-Identifier: Apache-2.0
"""The command `flb-aggregator`."""

import argparse
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from flb.errors import CorruptStore, FLBError, disk_error

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Set to 1 before numpy comes: its BLAS would start threads that spin, for products of one block."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn an error into one sentence and its exit code."""
    text = "Run the aggregator: take updates, combine them, publish adapters, seal rounds on the chain."
    parser = argparse.ArgumentParser(prog="flb-aggregator", description=text)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="settings (default: config.yaml)")
    arguments = parser.parse_args(argv)
    for name in BLAS_THREADS:
        os.environ.setdefault(name, "1")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until the aggregator has its own, nothing is begun
    try:
        try:
            from flb_aggregator import app

            return app.run(arguments.config)
        except OSError as error:
            raise disk_error(error) from error
        except sqlite3.Error as error:
            raise CorruptStore(f"the journal failed ({error})", "check the disk, then start again") from error
    except FLBError as error:
        print(f"flb-aggregator: {error} [{error.code}]", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
