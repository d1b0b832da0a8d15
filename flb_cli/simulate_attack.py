# SPDX-License-Identifier: Apache-2.0
"""Dishonest nodes of a simulated run: an attack of `flb.attacks` in the place of training or of its result.

An attacker's program checks nothing: what it seals has the right form and any values. Refusing them is the
aggregator's part.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flb.admission import BlockReader, in_file_order, layout_of, rank_of_size, update_metadata
from flb.attacks import ATTACKS, Attack, Seen, Update, label_flip, named
from flb.codec import CODINGS, Raw, dither
from flb.delta import Float32, difference
from flb.errors import ConfigError, Refused
from flb.legality.declarations import DECLARED
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Domain, Opening, Step, TensorSpec
from flb.wire import container
from flb_cli.simulate_node import Node
from flb_node import pipeline
from flb_node.examples import Example
from flb_node.pipeline import Sealed, Tensors


@dataclass(frozen=True, slots=True)
class Attackers:
    """The last `count` nodes of a run attack it with `name`, at `strength` (None where the attack has none); no name and 0
    for an honest run."""

    name: str | None = None
    count: int = 0
    strength: float | None = None

    @property
    def attack(self) -> Attack | None:
        """The attack, None for an honest run."""
        return None if self.name is None else ATTACKS[self.name]

    def include(self, number: int, nodes: int) -> bool:
        """Whether node `number` (from 1) of `nodes` is one of them."""
        return number > nodes - self.count


def attackers(name: str | None, count: int | None, strength: float | None, nodes: int) -> Attackers:
    """From the command line. Raises Refused for an unknown attack, ConfigError for a number that leaves no honest node
    or has no attack to it."""
    if name is None:
        if count or strength is not None:
            raise ConfigError("--attackers and --strength say nothing without an attack", "name one with --attack")
        return Attackers()
    attack, wanted = named(name), 1 if count is None else count
    if not 1 <= wanted < nodes:
        raise ConfigError(
            f"--attackers is {wanted}, and the run has {nodes} nodes", "let at least one attack, and one be honest"
        )
    if strength is None:
        return Attackers(name, wanted, attack.strength)
    if attack.strength is None or not math.isfinite(strength):
        what = "has no strength" if attack.strength is None else f"has the strength {strength}"
        raise ConfigError(
            f"the attack {name} {what}", "leave --strength out, or give a number to an attack that has one"
        )
    if attack.rescales and strength <= 0:
        raise ConfigError(f"the attack {name} has the strength {strength:g}", "give a number above 0")
    return Attackers(name, wanted, strength)


def check_mode(attackers: Attackers, mode: str) -> None:
    """Raise Refused for an attack that a LoRA mode leaves no room to; a mode that is none is for others to refuse."""
    attack, declared = attackers.attack, DECLARED.modes.get(mode)
    if attack is not None and attack.rescales and declared is not None and not declared.both_factors:
        fitting = " or ".join(word for word, found in DECLARED.modes.items() if found.both_factors)
        raise Refused(
            f"the attack {attackers.name} needs a step that sends both factors, and mode {mode} sends one",
            f"set lora.mode to {fitting}, or choose another attack",
        )


def poisoned(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Label flip on a node's examples. Raises Refused for plain text, which has no answers."""
    if any(example.text is not None for example in examples):
        raise Refused("label-flip needs questions with answers, and the dataset is plain text", "choose another attack")
    if all(example.rejected is not None for example in examples):
        return tuple(
            replace(example, messages=(*example.messages[:-1], example.rejected), rejected=example.messages[-1])
            for example in examples
            if example.rejected is not None
        )
    answers = label_flip.rotated([example.messages[-1] for example in examples])
    return tuple(
        replace(example, messages=(*example.messages[:-1], answer))
        for example, answer in zip(examples, answers, strict=True)
    )


def decoded(spec: RunSpec, step: Step, sealed: Sealed) -> Update:
    """The values of a sealed update, as the aggregator reads them."""
    layout = layout_of(spec, step, rank_of_size(spec, step, sealed.size))
    blob = memoryview(sealed.path.read_bytes())

    def read(offset: int, part: memoryview) -> int:
        found = blob[offset : offset + len(part)]
        part[: len(found)] = found
        return len(found)

    values = {}
    for number, tensor in enumerate(layout.tensors):
        reader = BlockReader(layout, -(-tensor.size // 32) * 32)
        values[tensor.name] = reader.values(read, number, 0, tensor.size).reshape(tensor.shape).copy()
    return values


def seal(
    attackers: Attackers,
    node: Node,
    honest: Sequence[Update],
    opening: Opening,
    spec: RunSpec,
    domain: Domain,
    blobs: BlobStore,
) -> Sealed:
    """The update that an attacker sends in this round; it trains only where its own update counts.

    Without an honest node in the cohort, an omniscient attack has nothing to go by: the attacker is honest.
    """
    attack = attackers.attack
    if attack is None or attack.sends is None or (attack.omniscient and not honest):
        return node.seal(opening, spec, domain, blobs)
    base: dict[str, Float32] = {}
    own: dict[str, Float32] = {}

    def train(adapter: Tensors, names: frozenset[str], seed: int, step: Step) -> Tensors:
        after = node.train(adapter, names, seed, step)
        base.update({name: adapter[name] for name in names})
        own.update({name: difference(after[name], adapter[name]) for name in names})
        return after

    if not attack.omniscient:
        with tempfile.TemporaryDirectory(dir=node.folder) as scratch:  # what it seals there is sent to nobody
            replace(node, train=train, folder=Path(scratch)).seal(opening, spec, domain, blobs)
    return write(attack.sends(Seen(base, own, honest), attackers.strength or 0.0), node, opening, spec, domain, blobs)


def write(
    sent: dict[str, Float32], node: Node, opening: Opening, spec: RunSpec, domain: Domain, blobs: BlobStore
) -> Sealed:
    """Any values in the form of an update."""
    layout = layout_of(spec, opening.step, pipeline.node_rank(spec.lora, node.rank))
    coding, draw = CODINGS[spec.wire_codec], dither.stream(dither.key_of(domain.run, opening.step, node.address))

    def coded(tensor: TensorSpec) -> Sequence[Raw]:
        return coding.encode(np.ascontiguousarray(sent[tensor.name], dtype=np.float32).reshape(-1), draw)

    salt = pipeline.salt_of(node.secret, opening.step, opening.base)
    with blobs.writer() as out, np.errstate(all="ignore"):  # NaN has no integer, and need not have one
        out.write(container.header_of(layout.entries, update_metadata(salt, node.address, opening.base)))
        for part in in_file_order(layout, coded):
            out.write(part)
        digest = out.commit()
    return Sealed(opening.step, opening.base, digest, layout.size, blobs.path(digest), 0.0)
