# SPDX-License-Identifier: Apache-2.0
"""Local privacy on this device: noise keys, and their charges in the ledger.

A key belongs to one update, by step and base. It and its charge are on the medium before the noise is drawn, so a crash in
between finds the same key, and costs nothing again. Once the update is sealed the key is deleted: sealed bytes are sent
again as often as needed, and other bytes under the same noise would give the difference away. Another base is another
release, with another key and another charge.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from flb.accounting import epsilon_of_releases, noise_multiplier_for
from flb.config import ClientConfig
from flb.errors import ConfigError, CorruptStore, Refused
from flb.privacy import example, local
from flb.privacy.discrete_gaussian import KEY_BYTES
from flb.privacy.ledger import ID_BYTES, Charge, check_budget, of_run, spent
from flb.spec import RunSpec
from flb.store import sync_folder, write_atomic
from flb.types import Address, Digest, Step
from flb_node.lr_schedule import planned_steps
from flb_node.privacy_ledger import PrivacyLedger

ON_DEVICE = ("local", "example")
"""The mechanisms that need keys and a ledger on this device."""
STAYS_HERE = ("tensorboard",)
"""Where losses may be reported to under local privacy: a loss is a function of the data that no noise covers."""


def check_settings(client: ClientConfig, spec: RunSpec) -> None:
    """Refuse settings of this node that its privacy and the run's do not bear. Raises Refused and ConfigError."""
    mechanism = spec.privacy.mechanism
    if mechanism != "local" and client.local_dp:
        raise Refused(
            "client.local_dp is true, and the run has no local privacy",
            "ask the operator for a run with it, or set client.local_dp: false",
        )
    if mechanism not in ON_DEVICE and not spec.privacy.central:
        return
    who = "central" if spec.privacy.central else mechanism
    leaving = [name for name in client.report_to or () if name not in STAYS_HERE]
    if leaving:
        raise ConfigError(
            f"client.report_to names {', '.join(leaving)}, and under {who} privacy no loss leaves this device",
            "report to tensorboard, which writes into the work folder, or to nothing",
        )


@dataclass(slots=True)
class LocalPrivacy:
    """One node's: `folder` is its work folder, `records` its dataset, `ledgers` the folder of ledgers."""

    run: Address
    folder: Path
    ledgers: Path
    records: Callable[[], Iterable[bytes]]
    log: Callable[[str], None] = lambda text: None
    tell: Callable[[dict[str, object]], None] = lambda details: None
    """Where details for the status go."""
    draw_key: Callable[[Step, Digest], bytes] = lambda step, base: secrets.token_bytes(KEY_BYTES)
    opened: PrivacyLedger | None = None
    secret: example.Secret | None = None
    """What the training that goes on has to take, in a run with privacy of examples."""
    steps: example.Steps | None = None

    def admit(self, client: ClientConfig, spec: RunSpec) -> None:
        """Before this node joins: settings that fit, a ledger that can be read, and what the run promises in the log.

        Raises what `check_settings` raises, DiskError and CorruptStore."""
        check_settings(client, spec)
        privacy = spec.privacy
        if privacy.central:
            self.log(
                f"the aggregator of this run clips updates to a norm of {privacy.clip_norm:.4g} and adds noise of "
                f"{privacy.noise_multiplier:g} times that to their sum; this device adds none, and the aggregator is trusted "
                "with the update"
            )
        if privacy.mechanism == "example":
            self.ledger().charges()
            steps = self.steps_of(spec)
            self.log(
                f"this run trains with noise of {steps.noise_multiplier:.3g} clip norms on samples of 1 in "
                f"{1 / steps.rate:.3g} of {steps.examples} examples, within epsilon {privacy.epsilon:g} (0: no budget) at delta "
                f"{privacy.delta:g}, for each example"
            )
        if privacy.mechanism == "local":
            self.ledger().charges()
            budget = (
                f"a budget of epsilon {privacy.epsilon:g}" if privacy.epsilon else "no budget: weak noise, no guarantee"
            )
            self.log(
                f"this run clips updates to a norm of {privacy.clip_norm:.4g} and adds noise of {privacy.sigma:.3g} to each "
                f"value, with {budget}, at delta {privacy.delta:g}"
            )

    def ledger(self) -> PrivacyLedger:
        """This dataset's ledger, opened at first use."""
        if self.opened is None:
            self.opened = PrivacyLedger(self.ledgers, self.records())
        return self.opened

    def refuse_beyond_budget(self, spec: RunSpec, step: Step, base: Digest) -> None:
        """Raise Refused, before anything is trained, where the budget has no room for this update."""
        charges = self.ledger().charges()
        path = self._path(step, base)
        further = self._charge(spec, step, base, path.read_bytes() if path.exists() else b"")
        if further not in charges:
            check_budget(charges, further, spec.privacy.epsilon, spec.privacy.delta, epsilon_of_releases)

    def key(self, spec: RunSpec, step: Step, base: Digest) -> bytes:
        """The noise key of this update, durable and charged for. Raises Refused, CorruptStore and DiskError."""
        path = self._path(step, base)
        if not path.exists():
            write_atomic(path, self.draw_key(step, base), mode=0o600)
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise CorruptStore(f"{path} is damaged", "delete it; another key is drawn, and charged for")
        self.ledger().charge(self._charge(spec, step, base, key), spec.privacy.epsilon, spec.privacy.delta)
        self._say(spec, step)
        return key

    def steps_of(self, spec: RunSpec) -> example.Steps:
        """What this node does in each round of a run with privacy of examples. Raises Refused, MissingTool, ChildFailed."""
        if self.steps is None:
            count = sum(1 for _ in self.records())
            planned = planned_steps(spec.training, count)
            self.steps = example.steps_of(
                spec.privacy, spec.training, spec.rounds.steps, count, planned, noise_multiplier_for
            )
        return self.steps

    def begin(self, spec: RunSpec, step: Step, base: Digest) -> None:
        """Before a training with privacy of examples: its key is durable and charged for. Raises as `key`."""
        self.secret = example.Secret(self.steps_of(spec), self.key(spec, step, base))

    def take(self) -> example.Secret | None:
        """For the trainer: the secret, once; None in every other run."""
        secret, self.secret = self.secret, None
        return secret

    def forget(self, step: Step, base: Digest) -> None:
        """Delete the key: the update is sealed, or was. Keys of earlier steps go too; nothing is released there any more."""
        gone = [path for path in self.folder.glob("noise-*.key") if int(path.name.split("-")[1]) < step]
        gone += [path] if (path := self._path(step, base)).exists() else []
        for path in gone:
            path.unlink()
        if gone:
            sync_folder(self.folder)

    def _path(self, step: Step, base: Digest) -> Path:
        return self.folder / f"noise-{step:04d}-{base.hex()[:16]}.key"

    def _charge(self, spec: RunSpec, step: Step, base: Digest, key: bytes) -> Charge:
        name = hashlib.sha256(b"flb noise key" + key).digest()[:ID_BYTES]
        if spec.privacy.mechanism == "example":
            steps = self.steps_of(spec)
            return Charge(self.run, step, base, name, 1 / steps.noise_multiplier, steps.rate, steps.releases)
        return Charge(self.run, step, base, name, local.mu(spec.privacy))

    def _say(self, spec: RunSpec, step: Step) -> None:
        privacy, charges = spec.privacy, self.ledger().charges()
        own = of_run(charges, self.run)
        epsilon, whole = (spent(some, privacy.delta, epsilon_of_releases) for some in (own, charges))
        budget = f"of {privacy.epsilon:g}" if privacy.epsilon else "without a budget; weak noise is no guarantee"
        self.log(
            f"step {step}: this dataset's privacy in this run is at epsilon {epsilon:.4g} {budget}, delta "
            f"{privacy.delta:g}, after {len(own)} releases"
        )
        self.tell(
            {"privacy": {"mechanism": privacy.mechanism, "epsilon": epsilon, "budget": privacy.epsilon,
                         "delta": privacy.delta, "releases": len(own), "epsilon_of_all_runs": whole}}
        )  # fmt: skip
