# SPDX-License-Identifier: Apache-2.0
"""What a legal spec is warned of: choices that go together, and are most likely not what was meant.

They are said where a run is planned and deployed, by the one who can change it. Nobody is refused for them: a node that
joins has no better knowledge of what the operator wants.
"""

from flb.legality.choices import Reason, Repair
from flb.legality.declarations import DECLARED, Declarations
from flb.lora.shape import A
from flb.spec_sections import RunSpec

LARGEST_ADAPTIVE_RATE = 1e-2
"""Learning rate up to which an adaptive optimizer is not warned of: entries of A are about as large at the start."""
ADAPTIVE_RATE = 1e-3
"""What is recommended instead."""


def cautions(spec: RunSpec, declarations: Declarations = DECLARED) -> tuple[Reason, ...]:
    """The warnings for a spec, in the form of reasons; none for most."""
    return (*adaptive_rate(spec, declarations), *idle_ranks(spec))


def idle_ranks(spec: RunSpec) -> tuple[Reason, ...]:
    """A rank above a layer's smaller side: its product has fewer directions than the factors have room for."""
    sides = [tensor.shape[1 if tensor.name.endswith(A) else 0] for tensor in spec.tensors]
    smallest = min(sides, default=spec.lora.r)
    if spec.lora.r <= smallest:
        return ()
    what = f"lora.r is {spec.lora.r}, and the smallest side of an adapted layer is {smallest}: more ranks learn nothing there"
    return (Reason(what, (Repair("lora.r", smallest),), "idle_ranks"),)


def adaptive_rate(spec: RunSpec, declarations: Declarations) -> tuple[Reason, ...]:
    """An adaptive server optimizer at the learning rate of FedAvg."""
    chosen = spec.server_optimizer
    optimizer = declarations.optimizers.get(chosen.name)
    # the step is at most eta / tau times the mean: with such a tau it is no larger than that of sgd
    damped = chosen.tau >= chosen.learning_rate
    if optimizer is None or not optimizer.adaptive or chosen.learning_rate <= LARGEST_ADAPTIVE_RATE or damped:
        return ()
    what = (
        f"run.server_optimizer.learning_rate is {chosen.learning_rate:g}, and {chosen.name} moves every weight of the adapter "
        "by about so much in each round, whatever the nodes trained"
    )
    return (Reason(what, (Repair("server_optimizer.learning_rate", ADAPTIVE_RATE),), "adaptive_rate"),)


def in_words(caution: Reason) -> str:
    """A warning as one line for people."""
    return f"warning: {caution.what}: {caution.remedy}"
