# SPDX-License-Identifier: Apache-2.0
"""What was spent on one dataset, as a list of charges that only grows. Reading and adding up; `flb_node.privacy_ledger`
writes.

A charge is made before its noise is drawn, and never given back: whether anybody saw the noised update is not known for
sure. Gaussian releases compose by adding up μ² (Dong, Roth, Su, arXiv 1905.02383, corollary 3.3), whatever their noise.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from flb.errors import CorruptStore, Refused
from flb.privacy.accountant import MARGIN, epsilon_of
from flb.types import Address, Digest, Step

ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Charge:
    """One release: sensitivity over deviation is `mu`; `key` names the noise key by its hash, and so the release."""

    run: Address
    step: Step
    base: Digest
    key: bytes
    mu: float

    def line(self) -> bytes:
        """One line of JSON."""
        fields = {
            "run": self.run.hex(),
            "step": self.step,
            "base": self.base.hex(),
            "key": self.key.hex(),
            "mu": self.mu,
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
    step, mu = fields["step"], fields["mu"]
    good = type(step) is int and step >= 1 and type(mu) is float and 0 < mu < math.inf
    if not good or (len(run), len(base), len(key)) != (20, 32, ID_BYTES):
        raise ValueError("not a charge")
    return Charge(Address(run), Step(int(str(step))), Digest(base), key, float(str(mu)))


def composed(charges: Iterable[Charge]) -> float:
    """μ of all charges together, √Σμ²."""
    return math.sqrt(math.fsum(charge.mu**2 for charge in charges))


def spent(charges: Iterable[Charge], delta: float) -> float:
    """ε of all charges together at `delta`, rounded up."""
    return epsilon_of(composed(charges), delta)


def of_run(charges: Iterable[Charge], run: Address) -> list[Charge]:
    """The charges of one run, whatever the node that made them was called."""
    return [charge for charge in charges if charge.run == run]


def check_budget(charges: Iterable[Charge], further: Charge, epsilon: float, delta: float) -> None:
    """Raise Refused where a further charge would bring its run beyond (ε, δ). An ε of 0 is no budget.

    Rounding is allowed for (a part in 10^9, which `epsilon_of` adds itself), so that a run gets the number of rounds that
    its noise was made for.
    """
    if not epsilon:
        return
    after = spent([*of_run(charges, further.run), further], delta)
    if after > epsilon * (1 + MARGIN):
        raise Refused(
            f"step {further.step} would bring this dataset to epsilon {after:.4g}, beyond the run's budget of {epsilon:g}",
            "this device takes no further part in the run; what was spent is never given back",
        )
