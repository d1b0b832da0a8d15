# SPDX-License-Identifier: Apache-2.0
"""The moments of the server optimizer as a blob: what one step leaves to the next, named by the round's record.

A safetensors file with one F64 entry for each tensor of the run, of the tensor's shape and one axis more for the
moments of an element (`flb.server_optimizer`), so that the elements of a span lie together. The metadata bind it to its
step, and carry τ, which `tau: auto` takes from the first mean and keeps. τ has a fixed length, so that of the header
follows from spec and step.
"""

import math
import struct

from flb.delta import Float64
from flb.errors import BadContainer
from flb.server_optimizer import OPTIMIZERS, Optimizer
from flb.server_optimizer.constants import Constants
from flb.spec import RunSpec
from flb.types import Step
from flb.wire import container

VERSION = "1"
ITEM = 8
"""Bytes of a moment."""


def optimizer_of(spec: RunSpec) -> Optimizer:
    """The run's server optimizer."""
    return OPTIMIZERS[spec.server_optimizer.name]


def keeps_moments(spec: RunSpec) -> bool:
    """Whether a step leaves moments at all."""
    return optimizer_of(spec).moments > 0


def element_size(spec: RunSpec) -> int:
    """Bytes of the moments of one element of the adapter."""
    return ITEM * optimizer_of(spec).moments


def header(spec: RunSpec, step: Step, tau: float) -> bytes:
    """The one legal header of what `step` leaves; τ as the 16 hex digits of a big-endian binary64."""
    metadata = {
        "optimizer": spec.server_optimizer.name, "step": str(step), "tau": struct.pack(">d", tau).hex(),
        "version": VERSION,
    }  # fmt: skip
    count = optimizer_of(spec).moments
    forms = ((tensor.name, "F64", (*tensor.shape, count)) for tensor in spec.tensors)
    return container.header_of(container.pack(forms), metadata)


def header_size(spec: RunSpec, step: Step) -> int:
    """Bytes before the moments of the first element in what `step` leaves."""
    return len(header(spec, step, 0.0))


def read_header(held: bytes, spec: RunSpec, step: Step) -> float:
    """τ of a blob from its first `header_size` bytes. Raises BadContainer unless it is what `step` left."""
    metadata = container.decode_header(held[container.LENGTH_BYTES :]).metadata
    try:
        tau = float(struct.unpack(">d", bytes.fromhex(metadata["tau"]))[0])
    except (KeyError, ValueError, struct.error) as error:
        raise BadContainer("the moments name no tau", "fetch the blob from another copy") from error
    if not _may_be(tau, spec) or held != header(spec, step, tau):
        raise BadContainer(f"the moments are not what step {step} left", "fetch the blob from another copy")
    return tau


def _may_be(tau: float, spec: RunSpec) -> bool:
    """Whether the run may have this τ: the spec's own, any above 0 with `tau: auto`, none for an optimizer without."""
    if not optimizer_of(spec).adaptive:
        return tau == 0
    own = spec.server_optimizer.tau
    return tau == own if own else 0 < tau < math.inf


def constants_of(spec: RunSpec, tau: float) -> Constants:
    """The optimizer's constants; `tau` is the spec's, or that of the first mean."""
    settings = spec.server_optimizer
    return Constants(settings.learning_rate, settings.momentum, settings.beta2, tau)


def start(spec: RunSpec, tau: float, moments: Float64) -> None:
    """The moments before the first step, of shape (n, moments an element)."""
    optimizer_of(spec).start(moments, tau)
