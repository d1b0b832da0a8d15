# SPDX-License-Identifier: Apache-2.0
"""`flb model export`: a run's adapter as a PEFT folder with a model card; transformers and peft are all that it needs.

The adapter's bytes are compared with the digest on chain before anything is written.
"""

import argparse
import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flb.errors import CorruptStore, DigestMismatch, NotListed, Refused
from flb.types import Digest

if TYPE_CHECKING:
    from flb_cli.verify import Material


def run(arguments: argparse.Namespace) -> int:
    """Export and say what."""
    from flb_cli import verify

    material = verify.find(arguments.run_name, arguments.rpc, arguments.offline, arguments.cache)
    result = {"folder": str(arguments.out), **export(material, arguments.out, arguments.step)}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"step {result['step']} of run {result['run']}, adapter {result['adapter'][:12]}…, in {arguments.out}")
    return 0


def export(material: "Material", out: Path, step: int | None) -> dict[str, Any]:
    """Write the adapter of `step`, None for the last, to the new folder `out`; returns what was written.

    Raises Refused (no such step), NotListed (a blob cannot be seen), DigestMismatch (its bytes are not those on
    chain), NotAllowedHere (`out` exists).
    """
    from flb import spec as specs
    from flb.adapter_blob import form_of
    from flb.lora.peft_config import peft_config
    from flb.roster import fold
    from flb.store import write_atomic
    from flb_cli.model_card import model_card
    from flb_cli.new_folder import new_folder

    view = fold(material.events)
    if not view.rolls:
        raise Refused("the run has sealed no round yet", "export it after the first one")
    wanted = len(view.rolls) if step is None else step
    if not 1 <= wanted <= len(view.rolls):
        raise Refused(f"the run has no sealed step {wanted}", f"choose 1 to {len(view.rolls)}")
    rolls = view.rolls[:wanted]
    spec = specs.decode(_blob(material, view.spec, "the run spec"))
    adapter = _blob(material, rolls[-1].adapter_digest, f"the adapter of step {wanted}")
    rank = form_of(spec, io.BytesIO(adapter).read).rank
    with new_folder(out) as part:
        write_atomic(part / "adapter_model.safetensors", adapter)
        write_atomic(part / "adapter_config.json", peft_config(spec.base, spec.lora, rank))
        card = model_card(spec, view.spec, material.domain, rolls, len(view.members), rank)
        write_atomic(part / "README.md", card.encode())
    return {
        "run": "0x" + material.domain.run.hex(),
        "chain_id": material.domain.chain_id,
        "step": wanted,
        "round": rolls[-1].round,
        "nodes": len(view.members),
        "adapter": rolls[-1].adapter_digest.hex(),
    }


def _blob(material: "Material", digest: Digest, what: str) -> bytes:
    path = material.fetch(digest)
    if path is None:
        raise NotListed(f"{what} cannot be seen", "ask the operator, or export from the aggregator's folder")
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise CorruptStore(f"{path} cannot be read", "restore it from another copy") from error
    if hashlib.sha256(blob).digest() != digest:
        raise DigestMismatch(f"{what} in {path} is not the one on chain", "restore it from another copy")
    return blob
