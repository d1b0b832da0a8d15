# SPDX-License-Identifier: Apache-2.0
"""The command `flb-node`."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from flb.errors import FLBError, disk_error


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn an error into one sentence and its exit code."""
    text = "Run a node: join the run, train on local data, deliver updates, and end with the run."
    parser = argparse.ArgumentParser(prog="flb-node", description=text)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="settings (default: config.yaml)")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until the node has its own handler, nothing is begun
    try:
        try:
            from flb_node import app

            return app.run(arguments.config)
        except OSError as error:
            raise disk_error(error) from error
    except FLBError as error:
        print(f"flb-node: {error} [{error.code}]", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
