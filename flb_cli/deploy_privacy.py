# SPDX-License-Identifier: Apache-2.0
"""What `flb chain deploy` writes into the spec about privacy, and which budgets it refuses because nothing would be left."""

from flb.config import Config
from flb.errors import Refused
from flb.privacy import example, feasibility, local
from flb.spec import PrivacySpec, TrainingSpec
from flb.types import TensorSpec


def plan(config: Config, training: TrainingSpec, tensors: tuple[TensorSpec, ...]) -> PrivacySpec | None:
    """The section of the settings; None without any. Raises Refused for two at once, and for a budget of local privacy whose noise is more than 30
    times the signal in the smallest round, unless `client.accept_noise`."""
    client, parameters = config.client, local.parameters_of(tensors)
    clip_norm = None if client.clip_norm == "auto" else float(client.clip_norm)
    if config.privacy.example:
        if client.local_dp:
            raise Refused(
                "privacy.example and client.local_dp are both true, and each protects something else",
                "switch off client.local_dp to protect single examples, or privacy.example to protect whole nodes",
            )
        return example.plan(clip_norm, client.target_epsilon, client.delta)
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
        clip_norm=clip_norm, epsilon=client.target_epsilon,
        delta=client.delta,
    )  # fmt: skip
