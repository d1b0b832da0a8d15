# SPDX-License-Identifier: Apache-2.0
"""Short examples packed into rows of `max_length` tokens, so that no step computes padding.

Best fit in the order of decreasing length, ties in the order of the data: the same examples give the same rows in
every process. The parts of a row stay apart: `lengths` becomes position ids that begin anew with each part, which
models of transformers turn into attention boundaries, and the first label of a part is ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flb.errors import ConfigError
from flb_node.tokens import IGNORED, Tokens


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row: the examples in it, one after the other."""

    parts: tuple[Tokens, ...]

    @property
    def ids(self) -> list[int]:
        """The token ids of all parts."""
        return [token for part in self.parts for token in part.ids]

    @property
    def labels(self) -> list[int]:
        """The labels of all parts. A part's first token is never predicted, for it would be from another part."""
        return [label for part in self.parts for label in (IGNORED, *part.labels[1:])]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each part; trl's column seq_lengths."""
        return [len(part.ids) for part in self.parts]


def check(packing: bool, processes: int, objective: str = "sft") -> None:
    """Raise ConfigError for packing with settings that do not go with it."""
    if packing and processes > 1:
        raise ConfigError("training.packing works in one process", "set client.processes to 1, or packing to false")
    if packing and objective != "sft":
        raise ConfigError(f"training.packing is for the objective sft; this run trains {objective}", "set it to false")


def pack(rows: Sequence[Tokens], max_length: int) -> list[Row]:
    """Each example once, whole, in rows of at most `max_length` tokens; none may be longer.

    Time grows with examples plus `max_length`: rows are found by the room that is left in them.
    """
    members: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(max_length + 1)]
    rooms = 0  # bit r is set where a row with room for r tokens waits
    for index in sorted(range(len(rows)), key=lambda index: (-len(rows[index].ids), index)):
        length = len(rows[index].ids)
        assert 0 < length <= max_length, f"an example has {length} tokens"
        fitting = rooms >> length
        if fitting:
            room = length + ((fitting & -fitting).bit_length() - 1)
            row = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = max_length, len(members)
            members.append([])
        members[row].append(index)
        left = room - length
        if left:
            with_room[left].append(row)
            rooms |= 1 << left
    return [Row(tuple(rows[index] for index in row)) for row in members]


def columns(rows: Sequence[Tokens], max_length: int, packing: bool) -> dict[str, list[list[int]]]:
    """What trl's SFTTrainer takes as prepared: input_ids and labels, and seq_lengths where rows are packed."""
    if not packing:
        return {"input_ids": [list(row.ids) for row in rows], "labels": [list(row.labels) for row in rows]}
    packed = pack(rows, max_length)
    return {
        "input_ids": [row.ids for row in packed],
        "labels": [row.labels for row in packed],
        "seq_lengths": [row.lengths for row in packed],
    }
