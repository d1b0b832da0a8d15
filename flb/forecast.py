# SPDX-License-Identifier: Apache-2.0
"""What a run will cost, before it is deployed: bytes, memory, disk and time, from its spec and the number of nodes.

Bytes are exact: they come from the layouts that admission checks against, without gRPC's framing (below 0.1 %). Memory
and time come from a model with measured constants; training is not in it, since it
depends on each node's device, and neither are blocks that the chain makes wait for.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from flb import moments
from flb.admission import layout_of
from flb.down import state_header, step_layout
from flb.errors import Refused
from flb.legality import choices_of
from flb.legality.overflow import largest_cap, largest_cohort, largest_sum
from flb.lora import shape
from flb.roster import quorum
from flb.spec_sections import RunSpec
from flb.types import ZERO_DIGEST, Codec, Step
from flb.wire import container

MIB = 1 << 20
SERVING_MIB, NODE_MIB = 124.0, 0.3
"""An aggregator that takes updates, and what each node of a round adds: 124 MiB at 16 nodes, 143 at 64."""
SMALLEST_ADDED_MIB = 24.0
"""How much of `SERVING_MIB` is there for combining, which begins when the updates are in."""
SUM_SECONDS, SORT_SECONDS, DISTANCE_SECONDS, PRODUCT_DISTANCE_SECONDS, PRODUCT_SECONDS = 0.31, 0.4, 0.88, 1.7, 2.2
"""Seconds a GiB of values in float32 that a round's nodes send, on two cores: summing; on top of it order statistics,
distances between flat updates, distances between products B·A, and best products. From single runs of `bench.aggregate` and
its forerunners, those of sorting and of products' distances on a busy machine: an order of size, no promise."""


@dataclass(frozen=True, slots=True)
class Overflow:
    """The bound of a sum in bits, of the 63 that are there, and the largest legal settings; `weight_cap` is 0 where no
    weight is capped."""

    bits: int
    weight_cap: int
    max_cohort: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run comes to. Bytes are those of one node in one round, the most of any round, unless named otherwise;
    `*_rank` is the rank at the end, `seconds_*` the parts of a round."""

    nodes: int
    cohort: int
    quorum: int
    parameters: int
    adapter_rank: int
    bytes_up: int
    bytes_up_smallest: int
    bytes_down: int
    bytes_first: int
    bytes_by_codec: dict[str, int]
    aggregator_mib: int
    aggregator_disk_round: int
    seconds_up: float
    seconds_combine: float
    seconds_down: float
    overflow: Overflow
    total_up: int
    total_down: int
    total_seconds: float

    @property
    def round_seconds(self) -> float:
        """A round without training."""
        return self.seconds_up + self.seconds_combine + self.seconds_down


def at_rank(spec: RunSpec, rank: int) -> RunSpec:
    """The spec of a run whose adapter has another rank."""
    return replace(spec, lora=replace(spec.lora, r=rank, ranks=()), tensors=shape.at_rank(spec.tensors, rank))


def adapter_rank(spec: RunSpec, step: int, cohort: int) -> int:
    """The rank of the adapter that `step` makes; every node is taken to train at the largest rank that the run allows."""
    lora = spec.lora
    if choices_of(spec).mode.restarts and step:
        return step * cohort * max(lora.node_ranks)
    return lora.r + (lora.residual_rank if step else 0)


def adapter_bytes(spec: RunSpec, step: int, cohort: int) -> int:
    """The adapter blob that `step` makes."""
    tensors = at_rank(spec, adapter_rank(spec, step, cohort)).tensors
    return len(container.adapter_header(tensors)) + container.data_size(tensors, "F32")


def update_bytes(spec: RunSpec, step: int, rank: int) -> int:
    """An update of a node of `rank`."""
    return layout_of(at_rank(spec, rank), Step(step)).size


def down_bytes(spec: RunSpec, step: int, cohort: int) -> int:
    """What a node downloads to have the adapter that `step` makes, when it has the one before."""
    if spec.encodes_steps:
        return step_layout(spec, Step(step), ZERO_DIGEST).size
    return adapter_bytes(spec, step, cohort)


def left_bytes(spec: RunSpec, step: int) -> int:
    """What a round leaves on the aggregator's disk besides updates and adapter: encoded step, remainder, moments."""
    size = 0
    if spec.encodes_steps:
        size += step_layout(spec, Step(step), ZERO_DIGEST).size
        size += len(state_header(spec, Step(step))) + container.data_size(spec.tensors, "F32")
    if moments.keeps_moments(spec):
        size += moments.header_size(spec, Step(step)) + moments.element_size(spec) * parameters_of(spec)
    return size


def parameters_of(spec: RunSpec) -> int:
    """How many values nodes train at the run's rank."""
    return sum(tensor.size for tensor in spec.tensors)


def drawn(spec: RunSpec, nodes: int) -> int:
    """How many of `nodes` members are drawn for a round (`flb.roster.cohort`). Raises Refused where they are too few."""
    rounds = spec.rounds
    if nodes < 1:
        raise Refused(f"a run of {nodes} nodes trains nothing", "give at least 1 with --nodes")
    if nodes < rounds.min_nodes:
        raise Refused(
            f"{nodes} nodes make no round of run.min_nodes {rounds.min_nodes}",
            "have more nodes, or lower run.min_nodes",
        )
    share = math.ceil(Fraction(repr(rounds.fraction)) * nodes)
    return min(nodes, rounds.max_cohort, max(rounds.min_nodes, share))


def kinds(spec: RunSpec) -> Iterator[tuple[int, int]]:
    """(step, how many steps are of its size): turns repeat every second step, and headers name steps in digits; sizes of
    a mode that grows are all different, and `max_rank` bounds how many there are."""
    steps = spec.rounds.steps
    if choices_of(spec).mode.restarts:
        yield from ((step, 1) for step in range(1, steps + 1))
        return
    first = 1
    while first <= steps:
        last = min(steps, 10 * first - 1)
        yield first, (last - first) // 2 + 1
        if first < last:
            yield first + 1, (last - first - 1) // 2 + 1
        first *= 10


def combine_mib(spec: RunSpec, cohort: int) -> float:
    """Buffers of two threads while updates are combined, in MiB: within a quarter of seven runs of `bench.aggregate`."""
    choices = choices_of(spec)
    directions = cohort * max(spec.lora.node_ranks) + spec.lora.r
    pairs = zip(spec.tensors[::2], spec.tensors[1::2], strict=False)
    widest = max((a.size // spec.lora.r + b.size // spec.lora.r for a, b in pairs), default=0)
    stacks = 8 * widest * directions / MIB  # A and B of every update in the widest module, in float64
    if choices.mode.turns or spec.lora.residual_rank:
        return 2 * stacks
    if choices.compares:
        return stacks if choices.mode.both_factors else 2 * 8 * cohort * 32_768 / MIB
    return max(8.0, 2 * 8 * cohort * 16_384 / MIB) if choices.rule.coordinates else 8.0


def combine_seconds(spec: RunSpec, cohort: int) -> float:
    """Seconds from the last update to the adapter on disk, on two cores."""
    choices = choices_of(spec)
    values = max(sum(tensor.size for tensor in layout_of(spec, Step(step)).tensors) for step in (1, 2))
    gib, rate = cohort * 4 * values / (1 << 30), SUM_SECONDS
    if choices.rule.coordinates:
        rate += SORT_SECONDS
    if choices.compares:
        rate += PRODUCT_DISTANCE_SECONDS if choices.mode.both_factors else DISTANCE_SECONDS * max(1.0, cohort / 64)
    if choices.mode.turns or spec.lora.residual_rank:
        rate += PRODUCT_SECONDS
    return rate * gib


def forecast(spec: RunSpec, nodes: int, mbit: float) -> Forecast:
    """What a legal spec comes to with `nodes` members, of whom the aggregator serves the drawn ones over one line of `mbit`
    million bits a second each way; nodes' own lines are taken to be no slower than their share. Raises Refused."""
    cohort = drawn(spec, nodes)
    if not 0 < mbit < math.inf:
        raise Refused(f"a line of {mbit:g} Mbit/s carries nothing", "give a number above 0 with --mbit")
    ranks = spec.lora.node_ranks
    counted = list(kinds(spec))
    ups = [(update_bytes(spec, step, max(ranks)), times) for step, times in counted]
    downs = [(down_bytes(spec, step, cohort), times) for step, times in counted]
    first = adapter_bytes(spec, 0, cohort)
    bytes_up, bytes_down = max(ups)[0], max(downs)[0]
    parameters = parameters_of(spec)
    up, down = (cohort * size * 8 / (mbit * 1e6) for size in (bytes_up, bytes_down))
    combine = combine_seconds(spec, cohort)
    total_up, total_down = (sum(size * times for size, times in sizes) for sizes in (ups, downs))
    choices, last = choices_of(spec), spec.rounds.steps
    memory = SERVING_MIB + NODE_MIB * cohort + max(0.0, combine_mib(spec, cohort) - SMALLEST_ADDED_MIB)
    return Forecast(
        nodes=nodes,
        cohort=cohort,
        quorum=quorum(cohort, spec.rounds.min_nodes),
        parameters=parameters,
        adapter_rank=adapter_rank(spec, last, cohort),
        bytes_up=bytes_up,
        bytes_up_smallest=min(update_bytes(spec, step, min(ranks)) for step, _ in counted),
        bytes_down=bytes_down,
        bytes_first=first,
        bytes_by_codec={
            codec.name.lower(): max(
                update_bytes(replace(spec, codec=codec.name.lower()), s, max(ranks)) for s in (1, 2)
            )
            for codec in Codec
        },
        aggregator_mib=math.ceil(memory),
        aggregator_disk_round=cohort * bytes_up + adapter_bytes(spec, last, cohort) + left_bytes(spec, last),
        seconds_up=up,
        seconds_combine=combine,
        seconds_down=down,
        overflow=Overflow(
            largest_sum(choices, spec.rounds.max_cohort).bit_length(), largest_cap(choices), largest_cohort(choices)
        ),
        total_up=cohort * total_up,
        total_down=cohort * (first + total_down),
        total_seconds=cohort * (total_up + first + total_down) * 8 / (mbit * 1e6) + last * combine,
    )
