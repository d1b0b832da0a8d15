# SPDX-License-Identifier: Apache-2.0
"""What was measured of one peer, in the form that is printed."""

import statistics
from collections.abc import Mapping, Sequence

from flb.errors import ChildFailed

Result = dict[str, object]


def result(
    name: str,
    version: str,
    rounds: Sequence[float],
    right: bool,
    server: Mapping[str, float],
    clients: Sequence[Mapping[str, float]],
) -> Result:
    """The figures of one peer; a peer whose average is wrong has none. Raises ChildFailed.

    rounds: seconds of each; the first one starts processes and fills caches and does not count. server: peak resident MiB of each kind of process on the server's side. clients: the same
    for each node. A side's figure is the sum of its processes' peaks; of the nodes the largest counts.
    """
    if not right:
        raise ChildFailed(f"the average that {name} computed is wrong", "its figures mean nothing")
    largest = max(clients, key=lambda processes: sum(processes.values()))
    return {
        "version": version,
        "round_s": round(min(rounds[1:]), 2),
        "median_round_s": round(statistics.median(rounds[1:]), 2),
        "rounds": [round(seconds, 2) for seconds in rounds],
        "server_peak_rss_mib": round(sum(server.values())),
        "client_peak_rss_mib": round(sum(largest.values())),
        "server_processes_mib": {kind: round(mib) for kind, mib in server.items()},
        "client_processes_mib": {kind: round(mib) for kind, mib in largest.items()},
    }
