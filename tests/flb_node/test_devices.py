# SPDX-License-Identifier: Apache-2.0
"""Where the model goes, for machines of every kind."""

import pytest

from flb.errors import ConfigError
from flb_node.devices import CPU, Placement, placement

pytestmark = pytest.mark.unit

ONE_GPU = Placement("cuda:0", {"": "cuda:0"})
MPS = Placement("mps", {"": "mps"})


@pytest.mark.parametrize(
    ("device_map", "cuda_devices", "mps", "expected"),
    [
        ("auto", 0, False, CPU),
        ("auto", 1, False, ONE_GPU),
        ("auto", 4, False, Placement("cuda:0", "auto")),
        ("auto", 0, True, MPS),
        ("cpu", 4, False, CPU),
        ("cpu", 0, True, CPU),
        ("cuda", 4, False, ONE_GPU),
        ("mps", 0, True, MPS),
    ],
)
def test_placement__word_and_machine__placed(
    device_map: str, cuda_devices: int, mps: bool, expected: Placement
) -> None:
    assert placement(device_map, cuda_devices, mps) == expected


@pytest.mark.parametrize(
    ("device_map", "named"), [("cuda", "no CUDA device"), ("mps", "no Apple GPU"), ("gpu", "'gpu'")]
)
def test_placement__absent_or_unknown__config_error(device_map: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        placement(device_map, 0, False)
