# SPDX-License-Identifier: Apache-2.0
"""What `flb chain deploy` writes into the spec about privacy, and which budgets it refuses because nothing would be left."""

from flb.config import Config
from flb.privacy import feasibility, local
from flb.spec import PrivacySpec, TrainingSpec
from flb.types import TensorSpec


def plan(config: Config, training: TrainingSpec, tensors: tuple[TensorSpec, ...]) -> PrivacySpec | None:
    """The section of the settings; None without `client.local_dp`. Raises Refused for a budget whose noise is more than 30
    times the signal in the smallest round, unless `client.accept_noise`."""
    client, parameters = config.client, local.parameters_of(tensors)
    if not client.local_dp:
        return None
    if client.target_epsilon is not None:
        found = feasibility.forecast(
            epsilon=client.target_epsilon, delta=client.delta, rounds=config.run.steps, parameters=parameters,
            cohort=config.run.min_nodes, local=True,
        )  # fmt: skip
        feasibility.refuse_hopeless(found, client.accept_noise)
    return local.plan(
        training=training, parameters=parameters, steps=config.run.steps,
        clip_norm=None if client.clip_norm == "auto" else float(client.clip_norm), epsilon=client.target_epsilon,
        delta=client.delta,
    )  # fmt: skip
