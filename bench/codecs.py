# SPDX-License-Identifier: Apache-2.0
"""Every codec on one core: speed of encoding and decoding, bytes, and what is lost.

    python -m bench.codecs [--mib 160] [--repeat R] [--json]

MiB/s count the values in float32. The payload is Llama-3.1-8B at rank 16 (5 MiB a layer), normal values with a
deviation of 1e-3. Run it with OPENBLAS_NUM_THREADS=1.
"""

import argparse
import json
import time
from typing import Any

import numpy as np

from bench.payload import MIB_OF_32_LAYERS, llama_8b_r16
from flb.codec import CODINGS, Coding, Raw, dither
from flb.delta import BLOCK, Float32
from flb.types import Codec


def decode(coding: Coding, raw: tuple[Raw, ...], values: Float32, compare: bool) -> float:
    """Decode a tensor block by block, as an aggregator does; returns the squared error if it is to be compared."""
    out, lost = np.empty(BLOCK, dtype=np.float32), 0.0
    views = [memoryview(data) for data in raw]
    for start in range(0, values.size, BLOCK):
        count = min(BLOCK, values.size - start)
        parts = [
            view[part.items(start) * part.item_size :][: part.items(count) * part.item_size]
            for part, view in zip(coding.parts, views, strict=True)
        ]
        decoded = coding.decode(parts, out[:count])
        if compare:
            gap = values[start : start + count].astype(np.float64) - decoded
            lost += float(np.dot(gap, gap))
    return lost


def measure(codec: Codec, tensors: list[Float32], repeat: int) -> dict[str, Any]:
    """Fastest of `repeat` passes over all tensors, each way."""
    coding, encoding, decoding = CODINGS[codec], [], []
    mib = sum(values.nbytes for values in tensors) / (1 << 20)
    for _ in range(repeat):
        draw, spent, size, lost, back = dither.stream(bytes(32)), 0.0, 0, 0.0, 0.0
        for values in tensors:
            start = time.perf_counter()
            raw = coding.encode(values, draw)
            spent += time.perf_counter() - start
            start = time.perf_counter()
            decode(coding, raw, values, compare=False)
            back += time.perf_counter() - start
            size += sum(len(part) for part in raw)
            lost += decode(coding, raw, values, compare=True)
        encoding.append(mib / spent)
        decoding.append(mib / back)
    whole = sum(float(np.dot(wide, wide)) for wide in (values.astype(np.float64) for values in tensors))
    return {
        "codec": codec.name.lower(), "encode_mib_s": round(max(encoding)), "decode_mib_s": round(max(decoding)),
        "bytes": size, "error": float(f"{(lost / whole) ** 0.5:.3g}"),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=float, default=160, help="the payload in float32 (default: 160)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    shapes = llama_8b_r16(max(1, round(options.mib * 32 / MIB_OF_32_LAYERS)))
    tensors = [random.standard_normal(t.size, dtype=np.float32) * np.float32(1e-3) for t in shapes]
    results = [measure(codec, tensors, options.repeat) for codec in Codec]
    if options.json:
        payload = round(sum(t.size for t in shapes) * 4 / (1 << 20), 2)
        print(json.dumps({"payload_mib": payload, "numpy": np.__version__, "codecs": results}))
        return
    print("codec   encode MiB/s  decode MiB/s        bytes      error")
    for row in results:
        speeds = f"{row['encode_mib_s']:12}  {row['decode_mib_s']:12}"
        print(f"{row['codec']:7} {speeds}  {row['bytes']:11}  {row['error']:9.2g}")


if __name__ == "__main__":
    main()
