# SPDX-License-Identifier: Apache-2.0
"""Published adapters: folders that PEFT reads, the same when made twice."""

import json
from pathlib import Path

import pytest
import safetensors.numpy

from flb.store import BlobStore
from flb.types import Step
from flb_aggregator.publish import make_adapter_zero, publish_folder
from tests.sim import TENSORS, small_spec

pytestmark = pytest.mark.unit


def test_make_adapter_zero__twice__is_the_same_blob(tmp_path: Path) -> None:
    one, two = (make_adapter_zero(TENSORS, 5, BlobStore(tmp_path / name)) for name in "ab")
    assert one == two
    tensors = safetensors.numpy.load_file(BlobStore(tmp_path / "a").path(one))
    assert {name: value.shape for name, value in tensors.items()} == {t.name: t.shape for t in TENSORS}


def test_publish_folder__twice_and_after_a_crash__is_whole(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    adapter = make_adapter_zero(TENSORS, 5, store)
    (tmp_path / "adapters" / "step-0001").mkdir(parents=True)
    (tmp_path / "adapters" / "step-0001" / "adapter_config.json").write_text("half")
    for _ in range(2):
        folder = publish_folder(tmp_path / "adapters", small_spec(), Step(1), store, adapter)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (folder / "adapter_model.safetensors").read_bytes() == store.get(adapter)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["target_modules"]) == ("LORA", 2, ["down_proj"])
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == ["step-0001"]
