# SPDX-License-Identifier: Apache-2.0
"""`flb model pull`: a snapshot of a repository on the Hugging Face hub, with a note of which commit it is.

huggingface_hub goes on with what is there already, so the remedy for a broken download is the same command again.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flb.errors import FLBError, MissingTool, ModelMissing, Refused, Unavailable
from flb_node.remote_code import write_note


def run(arguments: argparse.Namespace) -> int:
    """Pull and say what came."""
    commit = pull(arguments.repo, arguments.local_dir, arguments.revision, arguments.ignore)
    folder = arguments.local_dir
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    result = {"repo": arguments.repo, "revision": commit, "folder": str(folder), "bytes": size}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{arguments.repo} at {commit} in {folder}, {size / 1e6:.0f} MB; set model.model_path to that folder")
    return 0


def pull(repo: str, folder: Path, revision: str | None, ignore: Sequence[str]) -> str:
    """Download `repo` into `folder` but for files that match a pattern of `ignore`; returns the commit.

    Raises MissingTool, ModelMissing (no such repository or revision, or gated), Refused (the name has a wrong form),
    Unavailable (offline).
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError as error:
        raise MissingTool("huggingface_hub is not installed", "run: pip install 'flb[node]'") from error
    logging.set_verbosity_error()  # a broken connection is tried again, without a word between
    if not sys.stderr.isatty():
        disable_progress_bars()
    translate = _translator(repo, revision, folder)
    try:
        commit = str(hub.HfApi(endpoint=endpoint()).model_info(repo, revision=revision).sha)
        hub.snapshot_download(
            repo, revision=commit, local_dir=folder, ignore_patterns=list(ignore) or None, endpoint=endpoint()
        )
    except Exception as error:
        raise translate(error) from error
    write_note(folder, repo, commit)
    return commit


def _translator(repo: str, revision: str | None, folder: Path) -> Callable[[Exception], Exception]:
    """What each error of huggingface_hub and of its transport means to the user; others stay what they are."""
    from huggingface_hub import errors as hub

    transport = hub.HfHubHTTPError.__bases__  # of httpx or of its successor, whichever this version speaks through

    def translate(error: Exception) -> FLBError | Exception:
        if isinstance(error, hub.GatedRepoError):
            return ModelMissing(
                f"{repo} is gated: its owner asks you to accept a licence",
                f"accept it on {endpoint()}/{repo}, then run: hf auth login",
            )
        if isinstance(error, hub.RevisionNotFoundError):
            return ModelMissing(f"{repo} has no revision {revision}", "name a branch, a tag or a commit of it")
        if isinstance(error, hub.RepositoryNotFoundError):
            return ModelMissing(
                f"the hub has no model {repo}, or it is private",
                "check the spelling; for a private one run: hf auth login",
            )
        if isinstance(error, hub.HFValidationError):
            return Refused(f"{repo!r} is no name of a repository", "write owner/name")
        if isinstance(error, hub.OfflineModeIsEnabled):
            return Unavailable("HF_HUB_OFFLINE forbids downloads", f"unset it, or copy the model into {folder}")
        if isinstance(error, (OSError, *transport)) and not _of_the_disk(error):
            return Unavailable(
                f"the hub at {endpoint()} does not answer",
                f"try again when you are online, it goes on where it stopped; or copy the model into {folder}",
            )
        return error

    return translate


def endpoint() -> str:
    """The hub: huggingface.co, or the mirror that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def _of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno is not None and error.filename is not None
