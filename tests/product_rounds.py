# SPDX-License-Identifier: Apache-2.0
"""Rounds in product space from files: a spec of two modules of unlike shape, updates at any rank, and dense answers."""

import dataclasses
from pathlib import Path

import numpy as np
import safetensors.numpy

from flb.admission import Layout, in_file_order, layout_of, update_metadata
from flb.codec import CODINGS, dither
from flb.lora.shape import A, B
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_aggregator.moments import Moments
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import make_adapter_zero
from tests.coded import decoded
from tests.sim import small_spec, write_blob

Tensors = dict[str, np.ndarray]
MODULES = {"layers.0.down_proj": (24, 40), "layers.0.q_proj": (18, 12)}
R = 4


def product_spec(mode: str = "product", codec: str = "f32", r: int = R, **lora: object) -> RunSpec:
    """Two modules, d != k; `lora` are more fields of its section."""
    tensors = []
    for path, (d, k) in MODULES.items():
        tensors += [TensorSpec(path + A, (r, k)), TensorSpec(path + B, (d, r))]
    spec = small_spec(mode, codec)
    return dataclasses.replace(spec, tensors=tuple(tensors), lora=dataclasses.replace(spec.lora, r=r, **lora))  # type: ignore[arg-type]


def update_of(
    spec: RunSpec, seed: int, rank: int = 0, scale: float = 1e-2, layout: Layout | None = None
) -> tuple[bytes, Tensors]:
    """A legal update of random values, and its ring values as arrays."""
    layout = layout or layout_of(spec, Step(1), rank or spec.lora.r)
    random = np.random.default_rng(seed)
    coding, draw = CODINGS[spec.wire_codec], dither.stream(bytes([seed]) * 32)
    drawn = {t.name: (random.standard_normal(t.size) * scale).astype(np.float32) for t in layout.tensors}
    parts = {t.name: [bytes(part) for part in coding.encode(drawn[t.name], draw)] for t in layout.tensors}
    blob = container.header_of(layout.entries, update_metadata(bytes([seed]) * 32, bytes([seed]) * 20, bytes(32)))
    blob += b"".join(in_file_order(layout, lambda tensor: parts[tensor.name]))
    values = {t.name: decoded(spec.wire_codec, parts[t.name], t.size).astype(np.float64) for t in layout.tensors}
    return blob, {t.name: (np.rint(values[t.name] * 2**32) * 2.0**-32).reshape(t.shape) for t in layout.tensors}


class Played:
    """One step from adapter 0, or from another adapter, with its inputs at hand."""

    def __init__(
        self,
        spec: RunSpec,
        folder: Path,
        weights: tuple[int, ...] = (3, 5, 2),
        ranks: tuple[int, ...] = (),
        base: bytes = b"",
        layout: Layout | None = None,
    ) -> None:
        self.spec, self.weights, self.folder = spec, weights, folder
        store = BlobStore(folder / "blobs")
        self.base = store.path(store.put(base) if base else make_adapter_zero(spec.tensors, 0, store))
        self.ranks = ranks or (spec.lora.r,) * len(weights)
        made = [update_of(spec, 1 + index, rank, layout=layout) for index, rank in enumerate(self.ranks)]
        self.inputs = [
            Input(w, write_blob(folder / "updates", blob)) for w, (blob, _) in zip(weights, made, strict=True)
        ]
        self.updates = [values for _, values in made]

    def combined(self, threads: int = 2) -> bytes:
        """The next adapter's bytes."""
        return self.stepped(None, Step(1), threads)[0]

    def stepped(self, state: bytes | None, step: Step, threads: int = 2) -> tuple[bytes, bytes]:
        """The next adapter and moments of a step, from the moments that the step before left."""
        out, left = bytearray(), bytearray()
        kept = Moments(write_blob(self.folder, state) if state else None, left.extend)
        combine(self.spec, step, self.base, self.inputs, out.extend, threads, moments=kept)
        return bytes(out), bytes(left)

    def before(self, module: str) -> tuple[np.ndarray, np.ndarray]:
        """B and A of the base in float64."""
        held = safetensors.numpy.load_file(self.base)
        return held[module + B].astype(np.float64), held[module + A].astype(np.float64)

    def ideal(self, module: str) -> np.ndarray:
        """Σ pᵢBᵢAᵢ, dense, averaged by direction where ranks differ."""
        b, a = self.before(module)
        whole = np.zeros((b.shape[0], a.shape[1]))
        for h in range(self.spec.lora.r):
            total = sum(w for w, rank in zip(self.weights, self.ranks, strict=True) if rank > h)
            for weight, rank, update in zip(self.weights, self.ranks, self.updates, strict=True):
                if rank > h and weight:
                    column, row = b[:, h] + update[module + B][:, h], a[h] + update[module + A][h]
                    whole += weight / total * np.outer(column, row)
        return whole


def product_of(adapter: bytes, module: str) -> np.ndarray:
    """B·A of a published adapter."""
    held = safetensors.numpy.load(adapter)
    return held[module + B].astype(np.float64) @ held[module + A].astype(np.float64)
