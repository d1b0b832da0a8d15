# SPDX-License-Identifier: Apache-2.0
"""Write the legality tables into docs/aggregation.md, from what the algorithms declare; `--check` only compares.

    python -m tools.make_legality [--check]

A cell is one spec that is legal but for what its row and its column say. It holds yes, or the codes of the rules of
`flb.legality` that refuse it, whose first sentences stand below the tables.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from flb import legality
from flb.legality import LEGALITY_RULES
from flb.legality.declarations import DECLARED, NONE
from flb.spec_sections import RunSpec
from flb.types import Codec
from tools.vector_values import small_spec

TARGET = Path(__file__).resolve().parent.parent / "docs" / "aggregation.md"
BEGIN, END = "<!-- made by tools/make_legality.py -->", "<!-- end of what tools/make_legality.py makes -->"
Change = Callable[[RunSpec], RunSpec]


def spec_of(mode: str) -> RunSpec:
    """A legal spec of a mode: large enough a quorum, room to grow."""
    spec = small_spec(mode, Codec.MXINT8)
    grows = DECLARED.modes[mode].restarts
    rounds = replace(spec.rounds, min_nodes=10, max_cohort=20)
    return replace(spec, rounds=rounds, lora=replace(spec.lora, max_rank=1000 if grows else 0))


def with_lora(**changes: object) -> Change:
    """Settings of `lora`."""
    return lambda spec: replace(spec, lora=replace(spec.lora, **changes))  # type: ignore[arg-type]


def with_rule(word: str) -> Change:
    """A rule, with one hostile update and equal weights where it bears any."""
    hostile = {"byzantine": 1, "weights": "equal"} if DECLARED.rules[word].robust else {}
    return lambda spec: replace(spec, aggregation=replace(spec.aggregation, rule=word, **hostile))  # type: ignore[arg-type]


def with_mixing(word: str) -> Change:
    """A mixing, with buckets of two where it has any."""
    bucket = 0 if word == NONE or DECLARED.mixings[word].needs_distances else 2
    return lambda spec: replace(spec, aggregation=replace(spec.aggregation, mixing=word, bucket=bucket))


def with_weights(word: str) -> Change:
    """What an update counts."""
    return lambda spec: replace(spec, aggregation=replace(spec.aggregation, weights=word))


def with_optimizer(word: str) -> Change:
    """A server optimizer."""
    return lambda spec: replace(spec, server_optimizer=replace(spec.server_optimizer, name=word))


def with_down(spec: RunSpec) -> RunSpec:
    """Steps travel encoded."""
    return replace(spec, down="mxint8")


LORA_SETTINGS: dict[str, Change] = {
    "`down: mxint8`": with_down,
    "`ranks`": with_lora(ranks=(1, 2)),
    "`align`": with_lora(align=True),
    "`energy`": with_lora(energy=0.9),
    "`residual_rank`": with_lora(residual_rank=2),
}


def cell(spec: RunSpec) -> str:
    """Yes, or the codes of the reasons."""
    found = legality.reasons(spec)
    return ", ".join(dict.fromkeys(reason.code for reason in found)) if found else "yes"


def table(corner: str, rows: dict[str, RunSpec], columns: dict[str, Change]) -> list[str]:
    """One table."""
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return lines + [
        f"| {name} | {' | '.join(cell(change(spec)) for change in columns.values())} |" for name, spec in rows.items()
    ]


def quoted(words: Iterable[str], change: Callable[[str], Change]) -> dict[str, Change]:
    """Columns of the words of one setting."""
    return {f"`{word}`": change(word) for word in words}


def legend() -> Sequence[str]:
    """What each code means: the first sentence of its rule."""
    texts = ((rule.__name__, " ".join((rule.__doc__ or "").split())) for rule in LEGALITY_RULES)
    return [f"- `{name}`: {text}" for name, text in texts]


def text() -> str:
    """The whole part of the page."""
    modes = {f"`{word}`": spec_of(word) for word in DECLARED.modes}
    some = next(iter(word for word, mode in DECLARED.modes.items() if mode.linear and not mode.both_factors))
    rules = {f"`{word}`": with_rule(word)(spec_of(some)) for word in DECLARED.rules}
    parts = (
        ["Modes and rules (one hostile update, equal weights):", ""],
        table("mode", modes, quoted(DECLARED.rules, with_rule)),
        ["", "Modes and server optimizers:", ""],
        table("mode", modes, quoted(DECLARED.optimizers, with_optimizer)),
        ["", "Modes and other settings:", ""],
        table("mode", modes, LORA_SETTINGS),
        ["", f"Rules, weights and mixing (in mode `{some}`, whose update is linear in B·A):", ""],
        table("rule", rules, quoted(("examples", "equal"), with_weights) | quoted(DECLARED.mixings, with_mixing)),
        ["", "Every codec goes with everything. The codes:", ""],
        legend(),
    )
    return "\n".join([BEGIN, "", *(line for part in parts for line in part), "", END])


def main() -> int:
    """Write the part, or compare it."""
    page = TARGET.read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    out = before + text() + after
    if page == out:
        return 0
    if "--check" in sys.argv[1:]:
        print("the tables in docs/aggregation.md differ from the declarations: run `make gen`", file=sys.stderr)
        return 1
    TARGET.write_text(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
