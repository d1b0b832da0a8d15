# SPDX-License-Identifier: Apache-2.0
"""The base model as files: its tensors from safetensors headers, and the digest that the run spec names.

No weight is loaded, so the aggregator needs no torch. The digest is SHA-256 over the canonical JSON of
{file name: SHA-256} of the *.safetensors files; configuration and tokenizer may differ in spelling between
machines, the weights may not.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import rfc8785

from flb.errors import BadContainer, ModelMissing, WrongBaseModel
from flb.store import digest_of_file
from flb.types import TensorSpec
from flb.wire import container


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
    """Digest of the weights in hex."""
    listing = {path.name: digest_of_file(path).hex() for path in weight_files(folder)}
    return hashlib.sha256(rfc8785.dumps(listing)).hexdigest()


def check(folder: Path, expected: str) -> None:
    """Raise WrongBaseModel unless the folder holds the weights that the run spec names."""
    found = digest(folder)
    if found != expected:
        raise WrongBaseModel(
            f"the base model in {folder} is not this run's (digest {found[:12]}…, the run spec names {expected[:12]}…)",
            "set model.model_path to the model that the operator named",
        )
