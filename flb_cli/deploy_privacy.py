# SPDX-License-Identifier: Apache-2.0
"""What `flb chain deploy` writes into the spec about privacy, and which budgets it refuses because nothing would be left."""

from flb.config import Config
from flb.errors import Refused
from flb.privacy import central, example, feasibility, local
from flb.spec import PrivacySpec, TrainingSpec
from flb.types import TensorSpec


def plan(config: Config, training: TrainingSpec, tensors: tuple[TensorSpec, ...]) -> PrivacySpec | None:
    """The section of the settings; None without any. Raises Refused for two at once, and for a budget whose noise is more
    than 30 times the signal in the smallest round, unless `accept_noise`."""
    client, parameters = config.client, local.parameters_of(tensors)
    clip_norm = None if client.clip_norm == "auto" else float(client.clip_norm)
    if config.privacy.example:
        if client.local_dp:
            raise Refused(
                "privacy.example and client.local_dp are both true, and each protects something else",
                "switch off client.local_dp to protect single examples, or privacy.example to protect whole nodes",
            )
        if config.privacy.central != "none":
            raise Refused(
                f"privacy.example is true and privacy.central is {config.privacy.central}, and each protects something else",
                "set privacy.central: none to protect single examples, or privacy.example: false to protect whole nodes",
            )
        return example.plan(clip_norm, client.target_epsilon, client.delta)
    if config.privacy.central != "none":
        return plan_central(config, training, parameters)
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


def plan_central(config: Config, training: TrainingSpec, parameters: int) -> PrivacySpec:
    """The section of a run with central privacy. Raises as `plan`."""
    wanted = config.privacy
    if config.client.local_dp:
        raise Refused(
            f"client.local_dp is true and privacy.central is {wanted.central}; noise in both places costs twice and protects "
            "no better than the stronger",
            "set client.local_dp: false where the aggregator is trusted, else privacy.central: none",
        )
    denominator = denominator_of(config)
    if wanted.target_epsilon is not None:
        found = feasibility.forecast(
            epsilon=wanted.target_epsilon, delta=wanted.delta, rounds=config.run.steps, parameters=parameters,
            cohort=denominator, local=False,
        )  # fmt: skip
        feasibility.refuse_hopeless(found, wanted.accept_noise, "privacy.accept_noise")
    auto = wanted.clip_norm == "auto"
    return central.plan(
        adaptive=wanted.central == "adaptive",
        clip_norm=local.auto_clip_norm(training, parameters) if auto else float(wanted.clip_norm),
        epsilon=wanted.target_epsilon, multiplier=wanted.noise_multiplier, delta=wanted.delta, steps=config.run.steps,
        denominator=denominator, quantile=wanted.quantile, rate=wanted.rate, bits_noise=wanted.bits_noise,
    )  # fmt: skip


def denominator_of(config: Config) -> int:
    """What the noised sum is divided by: fixed beforehand, so that a node that is left out moves nothing else."""
    if config.privacy.denominator != "auto":
        return int(config.privacy.denominator)
    return max(config.run.min_nodes, round((config.num_clients or 0) * config.run.fraction))
