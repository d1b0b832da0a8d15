# SPDX-License-Identifier: Apache-2.0
"""`flb model`: the life of a model around a run, from the hub's files to a result that needs FLB no more."""

import argparse
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    text = "pull a base model; merge, export and try what a run made"
    parser = subparsers.add_parser("model", help=text, description=text)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    verb = _verb(verbs, "pull", "download a model from the Hugging Face hub; a broken download goes on")
    verb.add_argument("repo", metavar="REPO", help="owner/name on the hub")
    verb.add_argument("--local-dir", type=Path, required=True, metavar="DIR", help="folder for it: model.model_path")
    verb.add_argument("--revision", help="branch, tag or commit (default: main); what it stood for is written down")
    verb.add_argument("--ignore", action="append", default=[], metavar="PATTERN", help="files to leave out; repeatable")
    verb.set_defaults(run=_pull)

    verb = _verb(verbs, "merge", "write base and adapter as one model")
    verb.add_argument("adapter", type=Path, metavar="ADAPTER", help="PEFT folder: .safetensors, or .bin without code")
    verb.add_argument("--base", type=Path, required=True, metavar="DIR", help="folder of the base model")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    verb.add_argument(
        "--dtype", choices=("base", "float32", "bfloat16"), default="base", help="default: the base's own"
    )
    verb.add_argument(
        "--dequantize", action="store_true", help="merge a quantized base into a bfloat16 copy; refused without this"
    )
    _add_trust(verb)
    verb.set_defaults(run=_merge)

    verb = _verb(verbs, "export", "write a run's adapter as a PEFT folder with a model card")
    verb.add_argument("run_name", metavar="RUN", help="address of the run's contract, or the folder of a run")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    verb.add_argument("--step", type=int, metavar="N", help="which sealed step (default: the last)")
    verb.add_argument("--rpc", help="JSON-RPC endpoint (default: the folder's own, else the local chain's)")
    verb.add_argument("--offline", action="store_true", help="ask no chain: work from the folder's events.jsonl")
    verb.add_argument("--cache", type=Path, default=Path("flb-verify"), help="for blobs fetched for an address")
    verb.set_defaults(run=_export)

    verb = _verb(verbs, "chat", "talk to a model on the terminal")
    verb.add_argument("--base", type=Path, required=True, metavar="DIR", help="folder of the base model")
    verb.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT folder to put on it")
    verb.add_argument("--chat-template", type=Path, metavar="FILE", help="a Jinja file instead of the model's template")
    verb.add_argument("--prompt", help="answer this one and end")
    verb.add_argument("--max-tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)")
    verb.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto")
    verb.add_argument("--temperature", type=float, default=0.0, help="0, the default, always takes the likeliest token")
    _add_trust(verb)
    verb.set_defaults(run=_chat)


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    return verb


def _add_trust(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--trust-remote-code", metavar="REPO@COMMIT", help="whose code in the base's folder may run (default: none)"
    )


def _pull(arguments: argparse.Namespace) -> int:
    from flb_cli.model_pull import run

    return run(arguments)


def _merge(arguments: argparse.Namespace) -> int:
    from flb_cli.model_merge import run

    return run(arguments)


def _export(arguments: argparse.Namespace) -> int:
    from flb_cli.model_export import run

    return run(arguments)


def _chat(arguments: argparse.Namespace) -> int:
    from flb_cli.model_chat import run

    return run(arguments)
