# SPDX-License-Identifier: Apache-2.0
"""NVFlare's job: FedAvgRecipe in SimEnv, tensors in PyTorch format, every node a process of its own over TCP.

    python -m bench.peers.apps.nvflare_job run|check WORKSPACE NODES MIB ROUNDS

`run` runs the job. `check`, in a process that counts in nobody's memory, prints "right" if the model that the server
kept has the expected values, else "wrong".
"""

import sys
from pathlib import Path

from bench.peers import payload

NAME = "payload"


def run(workspace: Path, nodes: int, mib: int, rounds: int) -> None:
    """Run the job to its end; the logs and the last model stay under `workspace`."""
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.client.config import ExchangeFormat
    from nvflare.recipe import SimEnv

    recipe = FedAvgRecipe(
        name=NAME,
        model={"class_path": "bench.peers.apps.nvflare_model.Payload", "args": {"mib": mib}},
        min_clients=nodes,
        num_rounds=rounds,
        train_script=str(Path(__file__).with_name("nvflare_client.py")),
        server_expected_format=ExchangeFormat.PYTORCH,
    )
    recipe.execute(SimEnv(num_clients=nodes, num_threads=nodes, workspace_root=str(workspace)))


def check(workspace: Path, nodes: int, mib: int, rounds: int) -> str:
    """Compare every element of the kept model with its expected value."""
    import torch

    kept = torch.load(next(workspace.rglob("FL_global_model.pt")), weights_only=False)["model"]
    same = all(
        torch.allclose(
            torch.as_tensor(kept[name.replace(".", "_")]),
            torch.full(shape, payload.expected(i, nodes, rounds)),
            rtol=0,
            atol=1e-3,
        )
        for i, (name, shape) in enumerate(payload.shapes(mib))
    )
    return "right" if same else "wrong"


if __name__ == "__main__":
    arguments = (Path(sys.argv[2]), *(int(number) for number in sys.argv[3:6]))
    if sys.argv[1] == "run":
        run(*arguments)
    else:
        print(check(*arguments))
