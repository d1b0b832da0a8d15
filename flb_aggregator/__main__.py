# SPDX-License-Identifier: Apache-2.0
"""The command `flb-aggregator`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from flb.errors import FLBError
from flb_aggregator import app


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn an error into one sentence and its exit code."""
    text = "Run the aggregator: take updates, combine them, publish adapters, seal rounds on the chain."
    parser = argparse.ArgumentParser(prog="flb-aggregator", description=text)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="settings (default: config.yaml)")
    arguments = parser.parse_args(argv)
    try:
        return app.run(arguments.config)
    except FLBError as error:
        return app.failure(error)


if __name__ == "__main__":
    raise SystemExit(main())
