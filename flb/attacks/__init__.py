# SPDX-License-Identifier: Apache-2.0
"""What a dishonest node may send instead of its update: the lab in which aggregation rules are tried.

One attack, one file; all are pure functions of what the attacker sees and of one number, its strength. They are chains
of elementwise operations in a fixed order, so a simulated attack gives the same bytes on every machine. Attackers know
each other and may know what the honest nodes send: a rule that holds here holds against less. docs/simulate.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flb.attacks import alie, gauge, ipm, mimic, nan, scale, sign_flip
from flb.delta import Float32
from flb.errors import Refused

Update = Mapping[str, Float32]
"""The tensors that a step sends, by name."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an attacker knows in one round. `base` is the adapter that the round starts from, `own` the update that honest
    training on its data gave, `honest` the updates of the honest nodes in order of address: empty for attacks that do not
    need them."""

    base: Update
    own: Update
    honest: Sequence[Update] = ()


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack. `sends` makes the update that goes out, None where only the data are poisoned; `strength` is the
    default of its one number, None where it has none; `omniscient` ones need the honest updates. `rescales`: one factor
    against the other, so it needs a step that sends both, and a strength above 0."""

    sends: Callable[[Seen, float], dict[str, Float32]] | None
    strength: float | None = None
    omniscient: bool = False
    rescales: bool = False


ATTACKS: dict[str, Attack] = {
    "sign-flip": Attack(lambda seen, by: sign_flip.attack(seen.own, by), 1.0),
    "scale": Attack(lambda seen, by: scale.attack(seen.own, by), 100.0),
    "alie": Attack(lambda seen, by: alie.attack(seen.honest, by), 1.5, omniscient=True),
    "ipm": Attack(lambda seen, by: ipm.attack(seen.honest, by), 0.5, omniscient=True),
    "mimic": Attack(lambda seen, by: mimic.attack(seen.honest, int(by)), 0.0, omniscient=True),
    "gauge": Attack(lambda seen, by: gauge.attack(seen.base, seen.own, by), 16.0, rescales=True),
    "nan": Attack(lambda seen, by: nan.attack(seen.own)),
    "label-flip": Attack(None),
}
"""Every attack by the name that a user types."""


def named(name: str) -> Attack:
    """The attack of a name. Raises Refused for one that is not here."""
    if name not in ATTACKS:
        raise Refused(f"the attack {name!r} is unknown", f"choose {', '.join(ATTACKS)}")
    return ATTACKS[name]
