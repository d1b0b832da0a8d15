# SPDX-License-Identifier: Apache-2.0
"""The `flb` command. Every error ends here as one sentence and an exit code; no traceback reaches a user."""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from flb.errors import FLBError, disk_error

VERBS = (
    "demo",
    "init",
    "plan",
    "simulate",
    "verify",
    "scores",
    "claim",
    "account",
    "chain",
    "dataset",
    "model",
    "privacy",
)


def build_parser() -> argparse.ArgumentParser:
    """All verbs with their help."""
    parser = argparse.ArgumentParser(
        prog="flb", description="Fine-tune one language model together on data that is not shared."
    )
    try:
        number = version("flb")
    except PackageNotFoundError:
        number = "from a checkout"
    parser.add_argument("--version", action="version", version=f"flb {number}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in VERBS:
        importlib.import_module(f"flb_cli.{verb}").register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output left, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return report(disk_error(error), getattr(arguments, "json", False))
    except FLBError as error:
        return report(error, getattr(arguments, "json", False))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def report(error: FLBError, as_json: bool = False) -> int:
    """Print an error as one sentence, and as JSON on stdout where that was asked for; returns its exit code."""
    print(f"flb: {error} [{error.code}]", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": str(error), "code": error.code, "exit_code": error.exit_code}))
    return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
