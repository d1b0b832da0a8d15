# SPDX-License-Identifier: Apache-2.0
"""What legality speaks of: the choices of a spec with what they declare, reasons against them, and repairs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from flb.capabilities import (
    MixingCapabilities,
    ModeCapabilities,
    OptimizerCapabilities,
    PrivacyCapabilities,
    RuleCapabilities,
)
from flb.legality.declarations import NONE, Declarations
from flb.spec_sections import RunSpec

IN_CONFIG = {
    "aggregation": "run.aggregation",
    "server_optimizer": "run.server_optimizer",
    "rounds": "run",
    "ring": "run",
}
"""Sections of the spec that have another name in config.yaml."""


def config_key(setting: str) -> str:
    """The key of config.yaml for a setting of the spec."""
    section, dot, name = setting.rpartition(".")
    return f"{IN_CONFIG.get(section, section)}.{name}" if dot else f"run.{name}"


@dataclass(frozen=True, slots=True)
class Repair:
    """One setting of the spec, as section.name, and the value that ends a reason."""

    setting: str
    value: Any

    def applied(self, spec: RunSpec) -> RunSpec:
        """The spec with this change; a setting that no spec holds changes nothing."""
        section, dot, name = self.setting.rpartition(".")
        if not dot:
            return replace(spec, **{name: self.value}) if name in spec.__slots__ else spec
        if section not in spec.__slots__:
            return spec
        return replace(spec, **{section: replace(getattr(spec, section), **{name: self.value})})

    @property
    def words(self) -> str:
        """The change as a line of config.yaml."""
        return f"{config_key(self.setting)}: {self.shown}"

    @property
    def shown(self) -> str:
        """The value as config.yaml has it."""
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, tuple):
            return f"[{', '.join(map(str, self.value))}]" if self.value else "null"
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why choices do not go together, and the changes of one setting each that end it. `code` names the rule of legality,
    for tables and scripts."""

    what: str
    repairs: tuple[Repair, ...]
    code: str = "missing"

    @property
    def remedy(self) -> str:
        """All repairs, as one half of a sentence: each setting with the values that end the reason."""
        values: dict[str, list[str]] = {}
        for repair in self.repairs:
            values.setdefault(config_key(repair.setting), []).append(repair.shown)
        return "set " + ", or ".join(f"{key} to {' or '.join(shown)}" for key, shown in values.items())


@dataclass(frozen=True, slots=True)
class Choices:
    """A spec, and what the algorithms that it names declare."""

    spec: RunSpec
    declarations: Declarations
    mode: ModeCapabilities
    rule: RuleCapabilities
    mixing: MixingCapabilities
    optimizer: OptimizerCapabilities
    privacy: PrivacyCapabilities

    @property
    def ranks_differ(self) -> bool:
        """Whether nodes train at other ranks than the run's."""
        return self.spec.lora.node_ranks != (self.spec.lora.r,)

    @property
    def mixed(self) -> bool:
        """Whether updates are mixed before the rule."""
        return self.spec.aggregation.mixing != NONE

    @property
    def compares(self) -> bool:
        """Whether distances between whole updates are taken."""
        return self.mixing.needs_distances or self.rule.weighs

    @property
    def in_buckets(self) -> bool:
        """Whether updates are averaged in buckets that are drawn by lot."""
        return self.mixed and not self.mixing.needs_distances

    @property
    def inputs(self) -> int:
        """What the rule gets at the smallest quorum, min_nodes."""
        aggregation, least = self.spec.aggregation, self.spec.rounds.min_nodes
        return -(-least // max(aggregation.bucket, 1)) if self.in_buckets else least

    def modes(self, fits: Callable[[ModeCapabilities], bool]) -> tuple[Repair, ...]:
        """The modes that fit, as repairs."""
        return tuple(Repair("lora.mode", word) for word, mode in self.declarations.modes.items() if fits(mode))

    def rules(self, fits: Callable[[RuleCapabilities], bool]) -> tuple[Repair, ...]:
        """The rules that fit, as repairs."""
        return tuple(Repair("aggregation.rule", word) for word, rule in self.declarations.rules.items() if fits(rule))
