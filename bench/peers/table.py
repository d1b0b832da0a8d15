# SPDX-License-Identifier: Apache-2.0
"""One table of all systems, with each figure's ratio to the first row."""

from collections.abc import Mapping

Row = dict[str, object]

_NAMES = {"flb": "FLB", "nvflare": "NVFlare", "flower": "Flower"}
_COLUMNS = {
    "round_s": "fastest round, s",
    "median_round_s": "median round, s",
    "server_peak_rss_mib": "server, peak MiB",
    "node_peak_rss_mib": "node, peak MiB",
}


def table(results: Mapping[str, object]) -> str:
    """Markdown table of the results as `python -m bench.peers --json` prints them, rows in the order of `rows`.

    Behind a figure stands how many times the first row's figure it is; a missing figure is a dash.
    """
    entries = rows(results)
    columns = [key for key in _COLUMNS if any(key in row for row in entries)]
    lines = [["system", *(_COLUMNS[key] for key in columns)]]
    for row in entries:
        first = {} if row is entries[0] else entries[0]
        lines += [[str(row["name"]), *(_cell(row.get(key), first.get(key)) for key in columns)]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([shown[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *shown[1:]])


def rows(results: Mapping[str, object]) -> list[Row]:
    """One row {"name", "round_s", "median_round_s", "server_peak_rss_mib", "node_peak_rss_mib"} a system, FLB first."""
    found: list[Row] = []
    for key, name in _NAMES.items():
        measured = results.get(key)
        if isinstance(measured, Mapping):
            label = " ".join([name, *([str(measured["version"])] if "version" in measured else [])])
            row: Row = {"name": label, **{column: measured[column] for column in _COLUMNS if column in measured}}
            if "client_peak_rss_mib" in measured:
                row["node_peak_rss_mib"] = measured["client_peak_rss_mib"]
            found.append(row)
    return found


def _cell(figure: object, first: object) -> str:
    """The figure, and its ratio to `first` if there is one."""
    if not isinstance(figure, int | float):
        return "–"
    text = f"{figure:,.2f}" if figure < 100 else f"{figure:,.0f}"
    return f"{text} (×{figure / first:.1f})" if isinstance(first, int | float) and first else text
