# SPDX-License-Identifier: Apache-2.0
"""Memory of the demo's base model as a node loads it: whole, in 8 and in 4 bits, computing in float32 and bfloat16.

    python -m bench.quantization [--cache DIR] [--json]

MB are 10^6 bytes of weights and buffers, as transformers counts them (`get_memory_footprint`).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from flb_cli import demo_base
from flb_cli.cache import cache_folder
from flb_node.threads import configure_threads


def main() -> None:
    """Load each and print."""
    parser = argparse.ArgumentParser(description="Memory of the demo's base model in 32, 16, 8 and 4 bits.")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where the demo keeps its base model")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    configure_threads(None, nodes_here=1)
    import torch

    from flb_node.base import load_model
    from flb_node.devices import CPU
    from flb_node.quantization import config_of

    folder = demo_base.ensure(options.cache, lambda text: print(text, file=sys.stderr))
    found: list[dict[str, Any]] = []
    for dtype in (torch.float32, torch.bfloat16):
        for bits in (None, 8, 4):
            model = load_model(folder, dtype, CPU, quantized=config_of(bits, dtype, CPU.device))
            name = str(dtype).removeprefix("torch.")
            found.append({"dtype": name, "bits": bits, "weights_mb": round(model.get_memory_footprint() / 1e6)})
    if options.json:
        print(json.dumps({"models": found}))
    else:
        for line in found:
            print("  ".join(f"{name} {value}" for name, value in line.items()))


if __name__ == "__main__":
    main()
