# SPDX-License-Identifier: Apache-2.0
"""FedProx: the pull's gradient is what its formula says, and it ends with the training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flb_node import fedprox
from tests import tiny_model
from tests.flb_node.test_trainer import EXAMPLES, TRAINING, adapter_of, digest, load, tensors_of, train

pytestmark = pytest.mark.model


def test_pulled__gradient__is_that_of_the_loss_and_the_term() -> None:
    start = torch.tensor([1.0, -2.0, 3.0])
    weight = torch.nn.Parameter(start.clone())
    with fedprox.pulled([weight], 0.5):
        weight.data += torch.tensor([0.5, 0.0, -1.0])
        (weight**2).sum().backward()
    inside = weight.grad.clone()
    weight.grad = None
    ((weight**2).sum() + 0.25 * ((weight - start) ** 2).sum()).backward()
    assert torch.allclose(inside, weight.grad)
    weight.grad = None
    (weight**2).sum().backward()
    assert torch.equal(weight.grad, 2 * weight.detach())


def test_train__mu__holds_the_adapter_near_the_rounds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    local = load(tiny_model.build(tmp_path))
    zero = adapter_of(tensors_of(tmp_path))
    free = train(local, zero)
    held = local.train(EXAMPLES, zero, frozenset(zero), replace(TRAINING, fedprox_mu=5.0), 1, lambda *_: None)
    moved = [sum(float(np.sum((done.adapter[name] - zero[name]) ** 2)) for name in zero) for done in (free, held)]
    assert moved[1] < moved[0] / 4
    assert held.losses[0] == free.losses[0], "the pull begins once the adapter has moved"
    assert digest(train(local, zero).adapter) == digest(free.adapter)
