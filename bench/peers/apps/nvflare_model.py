# SPDX-License-Identifier: Apache-2.0
"""The payload as the PyTorch module that NVFlare's model persistor asks for."""

import torch

from bench.peers import payload


class Payload(torch.nn.Module):
    """Parameters of `payload.shapes(mib)`, each filled with its start value; there is no forward pass."""

    def __init__(self, mib: int) -> None:
        super().__init__()
        for i, (name, shape) in enumerate(payload.shapes(mib)):
            self.register_parameter(
                name.replace(".", "_"), torch.nn.Parameter(torch.full(shape, payload.start(i)), requires_grad=False)
            )
