# SPDX-License-Identifier: Apache-2.0
"""Adapters as blobs and as folders that PEFT reads: adapter 0, the result of each step, and its configuration."""

import os
from pathlib import Path

from flb.adapter_blob import form_of
from flb.lora import adapter_zero
from flb.lora.peft_config import peft_config
from flb.spec import RunSpec
from flb.store import BlobStore, digest_of_file, sync_folder, write_atomic
from flb.types import Digest, Step, TensorSpec
from flb.wire import container


def make_adapter_zero(tensors: tuple[TensorSpec, ...], seed: int, store: BlobStore) -> Digest:
    """Write adapter 0 into the store; the same spec gives the same bytes everywhere."""
    with store.writer() as out:
        out.write(container.adapter_header(tensors))
        for tensor in tensors:
            for block in adapter_zero.blocks(tensor, seed):
                out.write(block.astype("<f4", copy=False).data.cast("B"))
        return out.commit()


def adapter_folder(root: Path, step: Step) -> Path:
    """Where the adapter of a step is published."""
    return root / f"step-{step:04d}"


def publish_folder(root: Path, spec: RunSpec, step: Step, store: BlobStore, adapter: Digest) -> Path:
    """Make the PEFT folder of an adapter. The weights are a hard link to the blob where the disk allows it.

    Doing it twice is harmless; the folder appears whole, under its name, or not at all.
    """
    folder = adapter_folder(root, step)
    weights = folder / "adapter_model.safetensors"
    if weights.exists() and digest_of_file(weights) == adapter:
        return folder
    root.mkdir(parents=True, exist_ok=True)
    part = root / f".{folder.name}.{os.getpid()}.part"
    part.mkdir(exist_ok=True)
    with store.path(adapter).open("rb") as blob:
        rank = form_of(spec, blob.read).rank
    write_atomic(part / "adapter_config.json", peft_config(spec.base, spec.lora, rank))
    target = part / "adapter_model.safetensors"
    target.unlink(missing_ok=True)
    try:
        os.link(store.path(adapter), target)
    except OSError:  # another file system, or one without links
        target.write_bytes(store.path(adapter).read_bytes())
    if folder.exists():  # half made, or of an opening that was voided or undone
        for old in folder.iterdir():
            old.unlink()
        folder.rmdir()
    part.rename(folder)
    sync_folder(root)
    return folder
