# SPDX-License-Identifier: Apache-2.0
"""Local privacy in the node's path: what is sealed is clipped and noised, charged once, and never noised twice alike."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flb import admission
from flb.config import ClientConfig
from flb.errors import ConfigError, CorruptStore, Refused
from flb.privacy.ledger import Charge
from flb.spec import PrivacySpec, RunSpec
from flb.store import BlobStore
from flb.types import Digest, Step
from flb_aggregator.publish import make_adapter_zero
from flb_node import pipeline
from flb_node.local_privacy import LocalPrivacy, check_settings
from tests.flb_node.private_runs import private_spec
from tests.sim import DOMAIN, manifest_for, members, opening, reader, small_spec

pytestmark = pytest.mark.unit

NODE = members(1)[0]


class Device:
    """A node's device over several lives: its work folder, its ledgers, and what it logs and tells."""

    def __init__(self, root: Path) -> None:
        self.work, self.ledgers = root / "work", root / "ledgers"
        self.trained, self.lines = 0, list[str]()
        self.told: dict[str, Any] = {}
        self.drawn = 0

    def privacy(self) -> LocalPrivacy:
        self.work.mkdir(exist_ok=True)
        return LocalPrivacy(
            DOMAIN.run, self.work, self.ledgers, lambda: (b"one", b"two"), self.lines.append, self.told.update,
            self.draw,
        )  # fmt: skip

    def draw(self, step: Step, base: Digest) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(32, "big")

    def train(self, change: float) -> pipeline.Train:
        def trained(adapter: pipeline.Tensors, names: frozenset[str], seed: int, step: Step) -> pipeline.Tensors:
            self.trained += 1
            return {name: value + np.float32(change) for name, value in adapter.items()}

        return trained

    def seal(
        self, spec: RunSpec, step: int = 1, change: float = 0.25, base_seed: int = 0,
        confirm: Callable[[], None] = lambda: None,
    ) -> pipeline.Sealed:  # fmt: skip
        privacy = self.privacy()
        blobs = BlobStore(self.work / "blobs")
        base = make_adapter_zero(spec.tensors, base_seed, blobs)
        return pipeline.seal_update(
            spec, Step(step), base, run=DOMAIN.run, node=NODE.node, secret=b"\x05" * 32, blobs=blobs, folder=self.work,
            train=self.train(change), privacy=privacy, confirm=confirm,
        )  # fmt: skip

    def charges(self) -> list[Charge]:
        return self.privacy().ledger().charges()

    def keys(self) -> list[str]:
        return sorted(path.name for path in self.work.glob("noise-*.key"))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.mark.parametrize("codec", ["f32", "bf16", "mxint8", "mxint4"])
@pytest.mark.parametrize("epsilon", [None, 8.0])
def test_seal__local_privacy__is_admitted_clipped_and_noised(device: Device, codec: str, epsilon: float | None) -> None:
    spec = private_spec(epsilon, codec)
    sealed = device.seal(spec)
    blob = sealed.path.read_bytes()
    opened = opening(count=1, base=sealed.base)
    admission.check_update(reader(blob), manifest_for(spec, opened, NODE, blob), spec, Step(1))
    assert sealed.codec_error == 0.0, "what the codec loses stays here"
    if codec == "f32":
        values = np.concatenate([value.reshape(-1) for value in safetensors.numpy.load_file(sealed.path).values()])
        count, sigma = values.size, spec.privacy.sigma
        assert abs(float(np.std(values)) / sigma - 1) < 0.05, "0.25 everywhere has a norm far above 1: clipped to 1/√P"
        assert float(np.linalg.norm(values)) < 1 + sigma * (count**0.5 + 6)


def test_seal__charge_key_and_status__are_there(device: Device) -> None:
    spec = private_spec()
    sealed = device.seal(spec)
    (charge,) = device.charges()
    assert (charge.run, charge.step, charge.base, charge.mu) == (DOMAIN.run, 1, sealed.base, 2000.0)
    assert device.keys() == [], "used up"
    assert device.told["privacy"]["releases"] == 1 and device.told["privacy"]["epsilon"] > 1e5
    assert any("weak noise is no guarantee" in line for line in device.lines)


def test_seal__again__sends_the_sealed_bytes_and_charges_nothing(device: Device) -> None:
    spec = private_spec()
    assert device.seal(spec) == device.seal(spec, change=0.5)
    assert (device.trained, device.drawn, len(device.charges())) == (1, 1, 1)


def test_seal__crash_after_the_charge__finds_the_same_key_and_charges_once(device: Device, tmp_path: Path) -> None:
    spec = private_spec()
    key = device.privacy().key(spec, Step(1), base := make_adapter_zero(spec.tensors, 0, BlobStore(device.work / "b")))
    assert device.privacy().key(spec, Step(1), base) == key
    sealed = device.seal(spec)
    assert (device.drawn, len(device.charges())) == (1, 1)
    other = Device(tmp_path / "other")
    other.work.parent.mkdir()
    assert other.seal(spec).digest == sealed.digest, "the same key and training give the same bytes"


def test_seal__crash_between_key_and_charge__charges_then(device: Device) -> None:
    spec = private_spec()
    base = make_adapter_zero(spec.tensors, 0, BlobStore(device.work / "blobs"))
    (device.work / f"noise-0001-{base.hex()[:16]}.key").write_bytes(bytes(32))
    device.seal(spec)
    assert device.drawn == 0 and len(device.charges()) == 1


def test_seal__other_base__draws_another_key_and_pays_again(device: Device) -> None:
    spec = private_spec()
    one, other = device.seal(spec), device.seal(spec, base_seed=1)
    assert one.base != other.base and len({charge.key for charge in device.charges()}) == 2


def test_seal__not_confirmed__draws_and_charges_nothing(device: Device) -> None:
    def refuse() -> None:
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        device.seal(private_spec(), confirm=refuse)
    assert device.drawn == 0 and device.charges() == [] and device.keys() == []


def test_seal__beyond_the_budget__is_refused_before_training(device: Device) -> None:
    spec = private_spec(epsilon=8.0, steps=2)
    for step in (1, 2):
        device.seal(spec, step)
    with pytest.raises(Refused, match="step 3 would bring this dataset to epsilon .* beyond the run's budget of 8"):
        device.seal(spec, 3)
    assert device.trained == 2 and device.told["privacy"]["epsilon"] == pytest.approx(8.0, rel=1e-6)
    assert device.keys() == []


def test_seal__new_work_folder_and_key__forgets_no_charge(device: Device) -> None:
    """A reinstall: the same data on the same device, and everything else is new."""
    spec = private_spec(epsilon=8.0, steps=1)
    device.seal(spec)
    device.work = device.work.parent / "another"
    with pytest.raises(Refused, match="never given back"):
        device.seal(spec)


def test_seal__sealed_blob_lost__never_uses_its_key_again(device: Device) -> None:
    spec = private_spec()
    sealed = device.seal(spec)
    key = device.work / f"noise-0001-{sealed.base.hex()[:16]}.key"
    key.write_bytes((1).to_bytes(32, "big"))  # killed between the note and the deletion
    sealed.path.unlink()
    again = device.seal(spec, change=0.3)
    assert again.digest != sealed.digest and device.drawn == 2 and len(device.charges()) == 2


def test_seal__diverged_training__releases_noise_and_says_so_here_alone(device: Device) -> None:
    spec = private_spec()
    sealed = device.seal(spec, change=float("nan"))
    values = np.concatenate([value.reshape(-1) for value in safetensors.numpy.load_file(sealed.path).values()])
    assert abs(float(np.std(values)) / spec.privacy.sigma - 1) < 0.05
    assert any("released as noise alone" in line for line in device.lines)


def test_forget__keys_of_earlier_steps__go_too(device: Device) -> None:
    privacy = device.privacy()
    (device.work / "noise-0001-0123456789abcdef.key").write_bytes(bytes(32))
    (device.work / "noise-0003-0123456789abcdef.key").write_bytes(bytes(32))
    privacy.forget(Step(2), Digest(bytes(32)))
    assert device.keys() == ["noise-0003-0123456789abcdef.key"]


def test_key__damaged__is_refused(device: Device) -> None:
    spec = private_spec()
    base = Digest(bytes(32))
    privacy = device.privacy()
    (device.work / f"noise-0001-{base.hex()[:16]}.key").write_bytes(b"short")
    with pytest.raises(CorruptStore, match="another key is drawn, and charged for"):
        privacy.key(spec, Step(1), base)


def test_key__drawn_by_default__is_random_and_nobody_else_s_to_read(tmp_path: Path) -> None:
    spec, base = private_spec(), Digest(bytes(32))
    keys = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        privacy = LocalPrivacy(DOMAIN.run, tmp_path / name, tmp_path / "ledgers", lambda: (b"one",))
        keys.add(privacy.key(spec, Step(1), base))
        assert next((tmp_path / name).glob("noise-*.key")).stat().st_mode & 0o077 == 0
    assert len(keys) == 2


def test_seal__program_without_a_ledger__is_refused(tmp_path: Path) -> None:
    spec, blobs = private_spec(), BlobStore(tmp_path / "blobs")
    with pytest.raises(Refused, match="keeps no ledger"):
        pipeline.seal_update(
            spec, Step(1), make_adapter_zero(spec.tensors, 0, blobs), run=DOMAIN.run, node=NODE.node, secret=bytes(32),
            blobs=blobs, folder=tmp_path, train=lambda *_: {},
        )  # fmt: skip


def test_seal__run_without_noise_in_the_same_work_folder__does_not_lend_its_update(device: Device) -> None:
    """Runs of one seed start from the same adapter 0, and may share a work folder."""
    spec = private_spec()
    plain = device.seal(replace(spec, privacy=PrivacySpec()))
    sealed = device.seal(spec)
    assert sealed.digest != plain.digest and len(device.charges()) == 1
    assert device.seal(replace(spec, privacy=PrivacySpec())) == plain


def test_admit__local_run__opens_the_ledger_and_says_what_is_promised(device: Device) -> None:
    device.privacy().admit(ClientConfig(), private_spec())
    assert any("no budget: weak noise, no guarantee" in line for line in device.lines)
    device.privacy().admit(ClientConfig(), private_spec(epsilon=8.0))
    assert any("a budget of epsilon 8, at delta 1e-05" in line for line in device.lines)
    assert device.ledgers.is_dir()


def test_admit__run_without_privacy__makes_no_ledger(device: Device) -> None:
    device.privacy().admit(ClientConfig(), small_spec())
    assert not device.ledgers.exists() and device.lines == []


def test_admit__damaged_ledger__is_told_before_anything_is_trained(device: Device) -> None:
    device.privacy().ledger().path.write_bytes(b"nonsense\n")
    with pytest.raises(CorruptStore, match="privacy ledger is damaged"):
        device.privacy().admit(ClientConfig(), private_spec())


def test_check_settings__run_without_the_privacy_that_the_node_wants__is_refused() -> None:
    with pytest.raises(Refused, match="the run has no local privacy"):
        check_settings(ClientConfig(local_dp=True), small_spec())
    check_settings(ClientConfig(), small_spec())


def test_check_settings__losses_that_would_leave__are_refused() -> None:
    with pytest.raises(ConfigError, match="wandb"):
        check_settings(ClientConfig(report_to=("tensorboard", "wandb")), private_spec())
    check_settings(ClientConfig(report_to=("tensorboard",)), private_spec())
    check_settings(ClientConfig(report_to=("wandb",)), small_spec())
