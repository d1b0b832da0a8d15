# SPDX-License-Identifier: Apache-2.0
"""The base model as files: its tensors from safetensors headers, and the digest that the run spec names.

No weight is loaded, so the aggregator needs no torch. The digest is SHA-256 over the canonical JSON of
{file name: SHA-256} of the *.safetensors files; configuration and tokenizer may differ in spelling between
machines, the weights may not.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785

from flb import file_digests
from flb.errors import BadContainer, ModelMissing, WrongBaseModel
from flb.spec import BaseSpec
from flb.types import TensorSpec
from flb.wire import container

SOURCE = "flb-source.json"
"""The note of `flb model pull`, beside the weights."""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by name. Raises ModelMissing."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        raise ModelMissing(
            f"model.model_path: no *.safetensors in {folder}", "download the base model there, in safetensors format"
        )
    return files


def tensors(folder: Path) -> tuple[TensorSpec, ...]:
    """Names and shapes of all weights. Raises ModelMissing, or WrongBaseModel for a damaged file."""
    found = []
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                length = container.header_length(file.read(container.LENGTH_BYTES), container.HEADER_LIMIT)
                header = container.decode_header(file.read(length))
        except BadContainer as error:
            raise WrongBaseModel(f"{path} is damaged ({error.what})", "download the base model again") from error
        found += [TensorSpec(entry.name, entry.shape) for entry in header.entries]
    return tuple(found)


def configuration(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """config.json of a model folder, or another file of its kind; empty without it.

    Raises WrongBaseModel if it is not a JSON object.
    """
    path = folder / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise WrongBaseModel(f"{path} is damaged", "download the base model again") from error
    if not isinstance(found, dict):
        raise WrongBaseModel(f"{path} is damaged", "download the base model again")
    return found


def model_type(folder: Path) -> str:
    """The architecture by transformers' name, from config.json; empty if it is not stated there."""
    return str(configuration(folder).get("model_type", ""))


def digest(folder: Path) -> str:
    """Digest of the weights in hex. Raises ModelMissing."""
    return digest_of_listing(file_digests.digests(weight_files(folder)))


def digest_of_listing(listing: Mapping[str, str]) -> str:
    """The digest that the run spec names, from {file name: SHA-256 in hex}."""
    return hashlib.sha256(rfc8785.dumps(dict(listing))).hexdigest()


def source(folder: Path) -> tuple[str, str]:
    """Repository and revision that the folder was downloaded from, as `flb model pull` notes them; empty if unknown."""
    try:
        note = json.loads((folder / SOURCE).read_bytes())
        repo, revision = note["repo"], note["revision"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "", ""
    return (repo, revision) if isinstance(repo, str) and isinstance(revision, str) else ("", "")


def named(repo: str, revision: str) -> str:
    """A repository at a revision, for people; empty for none."""
    return f"{repo} at {revision[:12]}" if repo and revision else repo


def check(folder: Path, expected: BaseSpec) -> None:
    """Raise WrongBaseModel unless the folder holds the weights that the run spec names.

    The sentence names what differs: the digest, where the weights come from, and the files that changed since they
    were the run's.
    """
    files = weight_files(folder)
    before = {name: str(entry[-1]) for name, entry in file_digests.remembered(folder).items()}
    listing = file_digests.digests(files)
    found = digest_of_listing(listing)
    if found == expected.digest:
        return
    details = [f"digest {found[:12]}…, the run spec names {expected.digest[:12]}…"]
    if before and digest_of_listing(before) == expected.digest:
        changed = sorted({name for name, _ in before.items() ^ listing.items()})
        details.append(f"{', '.join(changed)} changed since this folder was")
    here, there = named(*source(folder)), named(expected.repo, expected.revision)
    if here and there and here != there:
        details.append(f"it holds {here}")
    wanted = f"{expected.name} ({there})" if there else expected.name
    raise WrongBaseModel(
        f"the base model in {folder} is not this run's ({'; '.join(details)})",
        f"set model.model_path to the model that the operator named, {wanted}, complete and unchanged",
    )
