# SPDX-License-Identifier: Apache-2.0
"""`flb privacy audit`: attack the clip and noise code of this installation, and say whether its claim stands.

It runs the code of the node with keys from the operating system: no model, no chain, no torch, and nothing is written.
"""

import argparse
import json
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flb.errors import Refused

if TYPE_CHECKING:
    from flb.privacy.empirical_audit import Verdict

TRIALS, ROUNDS, EPSILON, DELTA = 2000, 2, 3.0, 1e-5
"""Between 2 and 4 an epsilon is small enough to be refuted by a few thousand trials, and large enough to tell a quarter."""
SHARE = 0.25
"""Of its noise the mechanism has left that the audit must convict."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    text = "attack the privacy code of this installation"
    parser = subparsers.add_parser("privacy", help=text, description=text)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "tell neighbours apart by what local privacy releases, and compare with what it claims"
    audit = verbs.add_parser("audit", help=text, description=text)
    audit.add_argument("--trials", type=int, default=TRIALS, help=f"runs that are attacked (default: {TRIALS})")
    audit.add_argument("--rounds", type=int, default=ROUNDS, help=f"releases in a run (default: {ROUNDS})")
    audit.add_argument("--epsilon", type=float, default=EPSILON, help=f"the claim for a run (default: {EPSILON:g})")
    audit.add_argument("--delta", type=float, default=DELTA, help=f"the claim's delta (default: {DELTA:g})")
    audit.add_argument("--json", action="store_true", help="print the verdict as JSON")
    audit.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Audit and print; the exit code is that of a refusal where the claim falls or the audit is too weak to tell."""
    result = audit(arguments.trials, arguments.rounds, arguments.epsilon, arguments.delta)
    print(json.dumps(result) if arguments.json else in_words(result))
    return 0 if result["passed"] else Refused.exit_code


def audit(trials: int, rounds: int, epsilon: float, delta: float) -> dict[str, Any]:
    """The verdict on the mechanism as it is, and on the same with a quarter of its noise. Raises Refused for numbers that
    no claim and no audit has."""
    from flb.privacy import empirical_audit
    from flb.privacy.accountant import noise_multiplier_for
    from flb.privacy.discrete_gaussian import KEY_BYTES
    from flb.privacy.local import SENSITIVITY
    from flb.spec import PrivacySpec

    claim = PrivacySpec("local", 1.0, SENSITIVITY * noise_multiplier_for(epsilon, delta, rounds), epsilon, delta)
    whole, weakened = (
        empirical_audit.audit(claim, trials, rounds, lambda: secrets.token_bytes(KEY_BYTES), share)
        for share in (1.0, SHARE)
    )
    return {
        "passed": not whole.convicted and weakened.convicted, "mechanism": "local", "sigma": claim.sigma,
        "clip_norm": claim.clip_norm, "confidence": empirical_audit.CONFIDENCE, "audit": told(whole),
        "with_a_quarter_of_the_noise": told(weakened),
    }  # fmt: skip


def told(verdict: "Verdict") -> dict[str, Any]:
    """One verdict as JSON."""
    return {**asdict(verdict), "convicted": verdict.convicted}


def in_words(result: dict[str, Any]) -> str:
    """The same for people."""
    lines = []
    for name, key in (("as it is", "audit"), ("with a quarter of its noise", "with_a_quarter_of_the_noise")):
        found = result[key]
        word = "convicted" if found["convicted"] else "not convicted"
        lines.append(
            f"local privacy {name}: {word}; the attack shows an epsilon of at least {found['shown']:.3g}, and "
            f"{found['epsilon']:.4g} is claimed for {found['rounds']} rounds at delta {found['delta']:g} "
            f"({found['trials']} trials, {found['true_positives']} hits and {found['false_positives']} false alarms in "
            f"{found['counted']} of each)"
        )
    if result["passed"]:
        lines.append("passed: what is claimed stands, and the audit would have found noise that is too small")
    elif result["audit"]["convicted"]:
        lines.append("FAILED: the releases tell more than is claimed")
    else:
        lines.append("undecided: the audit is too weak to find noise that is too small; raise --trials")
    return "\n".join(lines)
