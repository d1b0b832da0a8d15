# SPDX-License-Identifier: Apache-2.0
"""Whether the Python files in a model's folder may run: only those that the config names, by repository and commit.

Older MiniCPM and ChatGLM bring their architecture as code. Such code can do all that the node can, its key included.
`flb model pull` notes repository, commit and the digest of each Python file, and the node compares them with
`model.trust_remote_code` before a line of it runs. Architectures that transformers knows never run code of a folder.
"""

import json
from pathlib import Path
from typing import Any

from flb import base_model
from flb.errors import ConfigError, Refused, WrongBaseModel
from flb.store import digest_of_file, write_atomic

NOTE = "flb-source.json"
CONFIGURATIONS = ("config.json", "tokenizer_config.json")


def write_note(folder: Path, repo: str, commit: str) -> None:
    """Note in `folder` where it came from."""
    note = {"repo": repo, "revision": commit, "code": _code(folder)}
    write_atomic(folder / NOTE, json.dumps(note, indent=2, sort_keys=True).encode() + b"\n")


def needs_code(folder: Path) -> bool:
    """Whether model or tokenizer point to classes in the folder's own files."""
    return bool(_classes(folder))


def allowed(folder: Path, name: str | None, revision: str | None) -> bool:
    """True if the folder's code is what the config allows by `name` and `revision`; False if it allows none.

    Raises Refused where the config allows some code and the folder holds other, WrongBaseModel for a damaged note.
    """
    if name is None or not needs_code(folder):
        return False
    remedy = f"pull it with flb model pull {name} --revision {revision} --local-dir DIR"
    path = folder / NOTE
    try:
        note: Any = json.loads(path.read_bytes())
        source, commit, code = str(note["repo"]), str(note["revision"]), dict(note["code"])
    except FileNotFoundError as error:
        raise Refused(f"{folder} does not say where its code comes from", remedy) from error
    except (ValueError, KeyError, TypeError) as error:
        raise WrongBaseModel(f"{path} is damaged", remedy) from error
    if (source, commit) != (name, revision):
        raise Refused(
            f"model.trust_remote_code allows {name} at {revision}, but {folder} holds {source} at {commit}", remedy
        )
    if changed := sorted(file for file, _ in code.items() ^ _code(folder).items()):
        raise Refused(f"{folder / changed[0]} is not what {name} holds at {revision}", remedy)
    if any("--" in reference for reference in _classes(folder)):
        raise Refused(f"{folder} takes code from another repository", "choose a model that brings its own")
    return True


def allowed_by_argument(folder: Path, text: str | None) -> bool:
    """`allowed` for REPO@COMMIT on a command line, or None. Raises ConfigError for another form."""
    name, at, revision = (text or "").partition("@")
    if text is not None and not (name and at and revision):
        raise ConfigError(f"--trust-remote-code is {text!r}", "give REPO@COMMIT, as flb model pull prints them")
    return allowed(folder, name or None, revision or None)


def refusal(folder: Path) -> Refused:
    """The sentence for a folder whose architecture is code that nobody allowed."""
    return Refused(
        f"the base model in {folder} brings code of its own ({base_model.model_type(folder) or 'no model_type'})",
        "choose a model that transformers knows, or allow this one by name and revision in model.trust_remote_code "
        "of the config, or --trust-remote-code",
    )


def _classes(folder: Path) -> list[str]:
    """Where transformers would take code from: FILE.CLASS, or REPO--FILE.CLASS for another repository."""
    maps = [base_model.configuration(folder, name).get("auto_map") for name in CONFIGURATIONS]
    return [str(place) for found in maps if found for place in (found.values() if isinstance(found, dict) else found)]


def _code(folder: Path) -> dict[str, str]:
    """Every Python file by its path in the folder, with its digest in hex."""
    return {str(path.relative_to(folder)): digest_of_file(path).hex() for path in sorted(folder.rglob("*.py"))}
