# SPDX-License-Identifier: Apache-2.0
"""What was spent on one dataset, as a list of charges that only grows. Reading and adding up; `flb_node.privacy_ledger`
writes.

A charge is made before its noise is drawn, and never given back: whether anybody saw the noised update is not known for
sure. Gaussian releases compose by adding up μ² (Dong, Roth, Su, arXiv 1905.02383, corollary 3.3), whatever their noise.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flb.errors import CorruptStore, Refused
from flb.privacy.accountant import MARGIN, epsilon_of
from flb.privacy.sampled import epsilon_of_releases
from flb.types import Address, Digest, Step

ID_BYTES = 16
Sampled = Callable[[tuple[tuple[float, float, int], ...], float], float]
"""`flb.privacy.sampled.epsilon_of_releases`, or the same in a child."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What was released under one noise key, which `key` names by its hash: `releases` of them, each with a sensitivity over
    deviation of `mu`, on a Poisson sample of rate `rate` of the examples; 1 is all of them."""

    run: Address
    step: Step
    base: Digest
    key: bytes
    mu: float
    rate: float = 1.0
    releases: int = 1

    def line(self) -> bytes:
        """One line of JSON."""
        fields = {
            "run": self.run.hex(),
            "step": self.step,
            "base": self.base.hex(),
            "key": self.key.hex(),
            "mu": self.mu,
            **({"rate": self.rate, "releases": self.releases} if (self.rate, self.releases) != (1.0, 1) else {}),
        }
        return json.dumps(fields).encode() + b"\n"


def read(text: bytes) -> tuple[list[Charge], int]:
    """The charges of a ledger, and how many of its bytes they fill.

    A last line without its end was being written when the process died, so its noise was never drawn: it is left out.
    Raises CorruptStore for any other line that is no charge.
    """
    whole = text.rfind(b"\n") + 1
    charges = []
    for number, line in enumerate(text[:whole].splitlines(), 1):
        try:
            charges.append(charge_of(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptStore(
                f"line {number} of the privacy ledger is damaged",
                "restore the file from a copy; without it what was spent is unknown",
            ) from error
    return charges, whole


def charge_of(fields: dict[str, object]) -> Charge:
    """One charge from its JSON. Raises ValueError, KeyError or TypeError for anything else."""
    run, base, key = (bytes.fromhex(str(fields[name])) for name in ("run", "base", "key"))
    step, mu, rate, releases = fields["step"], fields["mu"], fields.get("rate", 1.0), fields.get("releases", 1)
    good = type(step) is int and step >= 1 and type(mu) is float and 0 < mu < math.inf
    good = good and type(rate) is float and 0 < rate <= 1 and type(releases) is int and releases >= 1
    if not good or (len(run), len(base), len(key)) != (20, 32, ID_BYTES):
        raise ValueError("not a charge")
    return Charge(
        Address(run), Step(int(str(step))), Digest(base), key, float(str(mu)), float(str(rate)), int(str(releases))
    )


def composed(charges: Iterable[Charge]) -> float:
    """μ of all charges together, √Σμ²; samples count as if everybody took part."""
    return math.sqrt(math.fsum(charge.releases * charge.mu**2 for charge in charges))


def spent(charges: Iterable[Charge], delta: float, sampled: Sampled = epsilon_of_releases) -> float:
    """ε of all charges together at `delta`, rounded up: in closed form without samples, by `sampled` with them."""
    charges = list(charges)
    if all(charge.rate == 1.0 for charge in charges):
        return epsilon_of(composed(charges), delta)
    counts: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        counts[1 / charge.mu, charge.rate] += charge.releases
    return sampled(tuple((*kind, count) for kind, count in sorted(counts.items())), delta)


def of_run(charges: Iterable[Charge], run: Address) -> list[Charge]:
    """The charges of one run, whatever the node that made them was called."""
    return [charge for charge in charges if charge.run == run]


def check_budget(
    charges: Iterable[Charge], further: Charge, epsilon: float, delta: float, sampled: Sampled = epsilon_of_releases
) -> None:
    """Raise Refused where a further charge would bring its run beyond (ε, δ). An ε of 0 is no budget.

    Rounding is allowed for (a part in 10^9, which `epsilon_of` adds itself), so that a run gets the number of rounds that
    its noise was made for.
    """
    if not epsilon:
        return
    after = spent([*of_run(charges, further.run), further], delta, sampled)
    if after > epsilon * (1 + MARGIN):
        raise Refused(
            f"step {further.step} would bring this dataset to epsilon {after:.4g}, beyond the run's budget of {epsilon:g}",
            "this device takes no further part in the run; what was spent is never given back",
        )
