# SPDX-License-Identifier: Apache-2.0
"""Privacy of examples in the node's path: charged before the training, used once, refused beyond the budget."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.accounting import epsilon_of_rounds
from flb.config import ClientConfig
from flb.errors import ConfigError, Refused
from flb.privacy.example import Secret, plan
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Step
from flb_aggregator.publish import make_adapter_zero
from flb_node import pipeline
from flb_node.local_privacy import LocalPrivacy, check_settings
from tests.sim import DOMAIN, members, small_spec

pytestmark = pytest.mark.e2e  # the accountant is a child process

NODE = members(1)[0]
RECORDS = tuple(b"%d" % number for number in range(40))


class Device:
    """A node's device; its trainer takes the secret, and changes every value by 0.25."""

    def __init__(self, root: Path) -> None:
        self.root, self.secrets, self.told = root, list[Secret](), dict[str, object]()
        self.broken = False

    def seal(self, spec: RunSpec, step: int = 1, takes: bool = True) -> pipeline.Sealed:
        privacy = LocalPrivacy(DOMAIN.run, self.root, self.root / "ledgers", lambda: RECORDS, tell=self.told.update)

        def train(adapter: pipeline.Tensors, names: frozenset[str], seed: int, step: Step) -> pipeline.Tensors:
            if takes and (secret := privacy.take()) is not None:
                self.secrets.append(secret)
            if self.broken:
                raise KeyboardInterrupt
            return {name: value + np.float32(0.25) for name, value in adapter.items()}

        blobs = BlobStore(self.root / "blobs")
        return pipeline.seal_update(
            spec, Step(step), make_adapter_zero(spec.tensors, step, blobs), run=DOMAIN.run, node=NODE.node,
            secret=b"\x05" * 32, blobs=blobs, folder=self.root, train=train, privacy=privacy,
        )  # fmt: skip


def spec_of(epsilon: float | None = None, steps: int = 3) -> RunSpec:
    return replace(small_spec(codec="f32", steps=steps), privacy=plan(None, epsilon, 1e-5))


def test_seal__a_run_with_a_budget__charges_what_the_accountant_says(tmp_path: Path) -> None:
    device, spec = Device(tmp_path), spec_of(2.0)
    sealed = [device.seal(spec, step) for step in (1, 2, 3)]
    steps = device.secrets[0].steps
    assert steps.examples == 40 and steps.rate == spec.training.batch_size / 40
    told = device.told["privacy"]
    expected = epsilon_of_rounds(
        noise_multiplier=steps.noise_multiplier, sampling_rate=steps.rate, rounds=3 * steps.releases, delta=1e-5
    )
    assert isinstance(told, dict) and told["epsilon"] == pytest.approx(expected, rel=1e-6) and expected <= 2
    assert len({secret.key for secret in device.secrets}) == 3 and [one.codec_error for one in sealed] == [0.0] * 3
    with pytest.raises(Refused, match="beyond the run's budget"):
        device.seal(spec, 4)
    assert len(device.secrets) == 3, "nothing was trained"


def test_seal__noise_is_in_the_training__and_none_is_added_after_it(tmp_path: Path) -> None:
    sealed = Device(tmp_path).seal(spec_of())
    values = np.concatenate([value.reshape(-1) for value in safetensors.numpy.load_file(sealed.path).values()])
    assert np.allclose(values, 0.25, atol=1e-6)


def test_seal__a_trainer_that_takes_no_secret__seals_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="this trainer has none"):
        Device(tmp_path).seal(spec_of(), takes=False)


def test_seal__a_training_that_broke_off__has_the_same_key_again_at_no_further_cost(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.broken = True
    with pytest.raises(KeyboardInterrupt):
        device.seal(spec_of())
    device.broken = False
    device.seal(spec_of())
    assert device.secrets[0].key == device.secrets[1].key
    told = device.told["privacy"]
    assert isinstance(told, dict) and told["releases"] == 1
    assert not list(tmp_path.glob("noise-*.key"))


def test_settings__losses_that_would_leave__are_refused() -> None:
    with pytest.raises(ConfigError, match="wandb"):
        check_settings(ClientConfig(report_to=("wandb",)), spec_of())
    with pytest.raises(Refused, match="no local privacy"):
        check_settings(ClientConfig(local_dp=True), spec_of())
    check_settings(ClientConfig(report_to=("tensorboard",)), spec_of())
