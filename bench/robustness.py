# SPDX-License-Identifier: Apache-2.0
"""Rules against attacks: what wrong updates cost in accuracy, with nodes whose data differ.

    python -m bench.robustness [--seeds 2] [--rounds 200] [--rules NAME ...] [--json]

Softmax regression on scikit-learn's digits, 15 nodes of which 3 are wrong, data split by Dirichlet(0.3) over labels,
momentum 0.9 on the nodes, batches of 32. Updates go through the very rules of `flb.aggregation`, in the ring. A cell is
the test accuracy after the last round, mean over seeds. An attack sees all honest updates of the round.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_digits

from flb.aggregation import rules
from flb.aggregation.gram import squared_distances
from flb.aggregation.order_statistics import RangeSum
from flb.attacks import alie, ipm, mimic
from flb.attacks.moments import mean
from flb.delta import Float32, Float64, Int64, norm_shift
from flb.partition import dirichlet
from flb.spec_sections import AggregationSpec
from flb.types import Step

NODES, WRONG, BATCH, MOMENTUM, ALPHA, LEARNING_RATE = 15, 3, 32, 0.9, 0.3, 0.1
FRACTION_BITS, NORM_BOUND = 24, 512


def spec(rule: str, mixing: str = "none", bucket: int = 0, **more: float) -> AggregationSpec:
    """A rule for f = 3, every update counted once."""
    return AggregationSpec(rule=rule, byzantine=WRONG, mixing=mixing, bucket=bucket, weights="equal", **more)  # type: ignore[arg-type]


RULES = {
    "mean": spec("mean"),
    "norm bound": spec("norm_bound"),
    "median": spec("median"),
    "trimmed mean": spec("trimmed_mean"),
    "Krum": spec("krum"),
    "Multi-Krum": spec("multi_krum"),
    "geometric median": spec("geometric_median"),
    "centered clipping": spec("centered_clipping"),
    "buckets of 2, trimmed mean": spec("trimmed_mean", "bucketing", 2),
    "buckets of 2, geometric median": spec("geometric_median", "bucketing", 2),
    "buckets of 2, centered clipping": spec("centered_clipping", "bucketing", 2),
    "neighbours, trimmed mean": spec("trimmed_mean", "nearest_neighbours"),
    "neighbours, median": spec("median", "nearest_neighbours"),
    "neighbours, Krum": spec("krum", "nearest_neighbours"),
    "neighbours, centered clipping": spec("centered_clipping", "nearest_neighbours"),
}

VECTOR = "vector"
Update = dict[str, Float32]


def gauss(honest: list[Update], random: np.random.Generator) -> Update:
    """The honest mean and noise of a deviation of 10 in every coordinate."""
    middle = mean([update[VECTOR] for update in honest])
    return {VECTOR: (middle + 10 * random.standard_normal(middle.size)).astype(np.float32)}


ATTACKS: dict[str, Callable[[list[Update], np.random.Generator], Update]] = {
    "sign flip": lambda honest, random: ipm.attack(honest, 1.0),
    "IPM 2": lambda honest, random: ipm.attack(honest, 2.0),
    "ALIE 1.5": lambda honest, random: alie.attack(honest, -1.5),
    "Gauss 10": gauss,
    "mimic": lambda honest, random: mimic.attack(honest, 0),
}
"""What each wrong node sends; the sign is that of the honest mean, which costs more than that of the own update."""


def combine(aggregation: AggregationSpec, updates: Float64, step: int) -> Float64:
    """One round in memory: what `flb_aggregator` does with files. `updates` is (n, P)."""
    ring: Int64 = np.rint(updates * 2.0**FRACTION_BITS).astype(np.int64)
    count = len(ring)
    rules.check(aggregation, count)
    gram = None
    if rules.needs_distances(aggregation):
        reduced = np.rint(ring * 2.0 ** -norm_shift(NORM_BOUND, FRACTION_BITS))
        gram = (reduced @ reduced.T).astype(np.int64)
    squared = squared_distances(gram) if gram is not None else None
    mixed = rules.mixture(aggregation, squared, count, bytes(32), Step(step))
    if rules.capabilities(aggregation).coordinates:
        rows = mixed.matrix @ ring if mixed else ring
        first, last = rules.ranks(aggregation, len(rows))
        held = RangeSum(len(rows), first, last, np.int64, rows.shape[1])
        held.rows(rows.shape[1])[:] = rows
        total = held.into(np.empty(rows.shape[1], dtype=np.int64))
        denominator = (last - first) * (mixed.denominator if mixed else 1)
    else:
        weights, denominator = rules.weigh(aggregation, gram, (1,) * count, mixed)
        total = np.array(weights, dtype=np.int64) @ ring
    return np.asarray(total.astype(np.float64) / denominator * 2.0**-FRACTION_BITS)


def probabilities(model: Float64, images: Float64) -> Float64:
    """(examples, 10) of softmax regression; the last column of `images` is 1."""
    logits = images @ model.reshape(images.shape[1], 10)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def accuracy(aggregation: AggregationSpec, attack: str, seed: int, rounds: int, rate: float = LEARNING_RATE) -> float:
    """Test accuracy after `rounds`; the last three nodes are wrong unless the attack is `none`."""
    images, labels = load_digits(return_X_y=True)
    images = np.hstack([images / 16.0, np.ones((len(images), 1))])
    random = np.random.default_rng(seed)
    order = random.permutation(len(images))
    test, train = order[:360], order[360:]
    parts = dirichlet.partition([str(label) for label in labels[train]], NODES, ALPHA, seed)
    own = [train[part] for part in parts]
    honest = NODES if attack == "none" else NODES - WRONG
    model, momenta = np.zeros(images.shape[1] * 10), np.zeros((NODES, images.shape[1] * 10))
    for step in range(1, rounds + 1):
        for node in range(NODES):
            batch = random.choice(own[node], BATCH)
            error = probabilities(model, images[batch])
            error[np.arange(BATCH), labels[batch]] -= 1
            momenta[node] = MOMENTUM * momenta[node] - (images[batch].T @ error).ravel() / BATCH
        sent = [{VECTOR: momentum.astype(np.float32)} for momentum in momenta[:honest]]
        if attack != "none":
            sent += [ATTACKS[attack](sent[:honest], random) for _ in range(WRONG)]
        model = model + rate * combine(
            aggregation, np.array([update[VECTOR] for update in sent], dtype=np.float64), step
        )
    return float((probabilities(model, images[test]).argmax(axis=1) == labels[test]).mean())


def table(names: list[str], seeds: int, rounds: int) -> dict[str, dict[str, float]]:
    """Accuracy by rule and attack, and the worst of each rule."""
    found = {}
    for name in names:
        cells = {
            attack: round(sum(accuracy(RULES[name], attack, seed, rounds) for seed in range(seeds)) / seeds, 3)
            for attack in ("none", *ATTACKS)
        }
        found[name] = {**cells, "worst": min(cells.values())}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", choices=sorted(RULES), default=list(RULES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    found = table(options.rules, options.seeds, options.rounds)
    if options.json:
        print(json.dumps({"nodes": NODES, "wrong": WRONG, "rounds": options.rounds, "accuracy": found}))
        return
    columns = ("none", *ATTACKS, "worst")
    print(f"| rule | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, cells in found.items():
        print(f"| {name} | {' | '.join(f'{cells[column]:.3f}' for column in columns)} |")


if __name__ == "__main__":
    main()
