# SPDX-License-Identifier: Apache-2.0
"""Federated rounds in product space on a tiny model: what is published is the best product of what the nodes had."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.flb.lora.stacks import best
from tests.flb_node.test_modes import base, federation, products  # noqa: F401 - a fixture

pytestmark = pytest.mark.model


@pytest.mark.parametrize("align", [False, True])
def test_two_rounds__product__is_the_best_product_of_the_nodes(
    base: Path,  # noqa: F811
    tmp_path: Path,
    align: bool,
) -> None:
    run = federation(base, tmp_path, "product", align=align)
    for _ in range(2):
        mean = run.round()
        for path, dense in products(run.adapter()).items():
            wanted = best(mean[path], 4)
            assert np.linalg.norm(dense - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_two_rounds__residual__is_the_mean_of_the_nodes(base: Path, tmp_path: Path) -> None:  # noqa: F811
    """Three nodes of rank 4 leave at most rank 8 a round; 16 frozen ranks hold both rounds whole."""
    run = federation(base, tmp_path, "factors", residual_rank=16)
    for _ in range(2):
        mean = run.round()
        assert next(iter(run.adapter().values())).shape[0] == 20
        for path, dense in products(run.adapter()).items():
            assert np.linalg.norm(dense - mean[path]) <= 1e-5 * np.linalg.norm(mean[path])
        assert torch.allclose(run.logits_of_published(), run.logits_of_base_with(mean), atol=1e-5)
