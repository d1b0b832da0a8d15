# SPDX-License-Identifier: Apache-2.0
"""The serial engine of a simulated run: one round after the other, one node after the other, in one process.

The registry decides who is drawn and what is open, the round machine when a round closes. Honest nodes have their turn
before the attackers, who may know what they sent; the order changes no byte of the result.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flb import identity
from flb.attacks import Update
from flb.errors import FLBError, PeerFault, Refused, TrainingFailed
from flb.roster import quorum
from flb.store import BlobStore
from flb.types import Opening, Seconds
from flb_cli import simulate_attack
from flb_cli.simulate_aggregator import CHUNK, Aggregator
from flb_cli.simulate_attack import Attackers
from flb_cli.simulate_node import Node
from flb_node.pipeline import Sealed

VOID_IN_A_ROW = 3
"""So many void rounds after each other end the run: the same nodes train the same step to the same bytes."""
ENGINE = "serial"


@dataclass(slots=True)
class Serial:
    """A run from its first round to its last. `rejected` lists every update that was refused, `on_node` is told before
    each node's turn, `on_round` after each sealed round (with its line of `lines`)."""

    aggregator: Aggregator
    nodes: list[Node]
    blobs: BlobStore
    """Of the nodes: adapters and sealed updates."""
    attackers: Attackers = field(default_factory=Attackers)
    on_node: Callable[[Opening, Node], None] = lambda opening, node: None
    on_round: Callable[[dict[str, Any]], None] = lambda line: None
    rejected: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    train_seconds: float = 0.0

    def run(self) -> None:
        """Join, and seal every round of the spec. Raises Refused where rounds stay void."""
        registry = self.aggregator.registry
        for node in self.nodes:
            registry.join(node.member())
        registry.start()
        self.aggregator.follow()
        void = 0
        while (opening := self.aggregator.opening()) is not None:
            sealed, count = len(registry.view().rolls), len(self.rejected)
            trained, combined = self.train_seconds, self.aggregator.combine_seconds
            self.round(opening)
            self.expire(opening)
            rolls = registry.view().rolls
            void = 0 if len(rolls) > sealed else void + 1
            if void == VOID_IN_A_ROW:
                raise self.stuck(opening, len(self.rejected) - count)
            if not void:
                self.note({
                    "round": opening.round, "step": opening.step, "cohort": len(opening.cohort),
                    "accepted": rolls[-1].accepted, "rejected": len(self.rejected) - count,
                    "adapter_sha256": rolls[-1].adapter_digest.hex(),
                    "train_s": round(self.train_seconds - trained, 3),
                    "aggregate_s": round(self.aggregator.combine_seconds - combined, 4),
                    **self.aggregator.figures,
                })  # fmt: skip

    def note(self, line: dict[str, Any]) -> None:
        """A round is sealed."""
        self.lines.append(line)
        self.on_round(line)
        newest = self.aggregator.registry.view().adapter
        self.blobs.delete_others({newest}, float("inf"))

    def round(self, opening: Opening) -> None:
        """Every drawn node's turn."""
        self.fetch(opening)
        drawn = {member.node for member in opening.cohort}
        cohort = sorted((node for node in self.nodes if node.address in drawn), key=lambda node: node.address)
        attack = self.attackers.attack
        honest: list[Update] = []
        for hostile in (False, True):
            for node in cohort:
                if self.attackers.include(node.number, len(self.nodes)) != hostile:
                    continue
                self.on_node(opening, node)
                sealed = self.turn(opening, node, honest if hostile else None)
                if sealed is not None and not hostile and attack is not None and attack.omniscient:
                    honest.append(simulate_attack.decoded(self.aggregator.spec, opening.step, sealed))

    def fetch(self, opening: Opening) -> None:
        """Copy the round's adapter to the nodes."""
        if self.blobs.has(opening.base):
            return
        with self.blobs.writer() as out, self.aggregator.blobs.path(opening.base).open("rb") as file:
            while chunk := file.read(CHUNK):
                out.write(chunk)
            out.commit()

    def turn(self, opening: Opening, node: Node, honest: list[Update] | None) -> Sealed | None:
        """One node trains, seals and delivers; `honest` is what an attacker knows, None for an honest node. Returns what
        was admitted."""
        aggregator = self.aggregator
        spec, domain = aggregator.spec, aggregator.domain
        started = time.perf_counter()
        try:
            if honest is None:
                sealed = node.seal(opening, spec, domain, self.blobs)
            else:
                sealed = simulate_attack.seal(self.attackers, node, honest, opening, spec, domain, self.blobs)
            self.train_seconds += time.perf_counter() - started
            manifest = node.manifest(opening, spec, aggregator.spec_digest, sealed)
            aggregator.deliver(manifest, identity.sign(node.key, domain, identity.manifest_hash(manifest)), sealed)
        except (PeerFault, TrainingFailed) as error:
            self.reject(opening, node, error)
            return None
        return sealed

    def reject(self, opening: Opening, node: Node, error: FLBError) -> None:
        """Note an update that does not count."""
        self.rejected.append({
            "round": opening.round, "node": "0x" + node.address.hex(), "number": node.number,
            "attacker": self.attackers.include(node.number, len(self.nodes)), "code": error.code, "what": str(error),
        })  # fmt: skip

    def expire(self, opening: Opening) -> None:
        """Let the time of a round pass that is still open: it closes at its deadline, or is void after its grace."""
        grace = self.aggregator.spec.rounds.grace_seconds
        for now in (opening.deadline, opening.deadline + grace + 1):
            still = self.aggregator.opening()
            if still is not None and still.round == opening.round:
                self.aggregator.tick(Seconds(now))

    def stuck(self, opening: Opening, refused: int) -> Refused:
        """Why the run cannot go on."""
        spec = self.aggregator.spec
        needed = quorum(len(opening.cohort), spec.rounds.min_nodes)
        first = f" (the last: {self.rejected[-1]['what']})" if self.rejected else ""
        return Refused(
            f"{VOID_IN_A_ROW} rounds after each other were void: {refused} of {len(opening.cohort)} updates were "
            f"refused{first}, and {needed} are needed",
            "lower --attackers or training.learning_rate, or raise run.norm_bound",
        )
