# SPDX-License-Identifier: Apache-2.0
"""What an adapter blob of a run may look like: its rank stands in its header, everything else follows from the spec.

In most modes there is one form. With a residual there are two, and `stack` makes an adapter of a larger rank in each
step, up to the run's bound.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flb.errors import BadContainer
from flb.lora.shape import at_rank, has_rank, largest_rank, rank_of
from flb.spec import RunSpec
from flb.types import TensorSpec
from flb.wire import container

REMEDY = "fetch the adapter that the chain names"


@dataclass(frozen=True, slots=True)
class Form:
    """One legal form: names and shapes in file order, the rank, and the header's bytes. The data are float32."""

    tensors: tuple[TensorSpec, ...]
    rank: int
    header: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole blob."""
        return len(self.header) + container.data_size(self.tensors, "F32")


def form_at(spec: RunSpec, rank: int) -> Form:
    """The form of an adapter of `rank`."""
    tensors = spec.tensors if rank == spec.lora.r else at_rank(spec.tensors, rank)
    return Form(tensors, rank, container.adapter_header(tensors))


def largest_size(spec: RunSpec) -> int:
    """Bytes that an adapter blob of the run may have at most."""
    return form_at(spec, largest_rank(spec.lora)).size


def form_of(spec: RunSpec, read: Callable[[int], bytes]) -> Form:
    """The form of a blob from its beginning; `read` gives the next so many bytes, fewer at the end.

    Raises BadContainer unless it is the one legal header of a rank that the run's adapters may have.
    """
    prefix = read(container.LENGTH_BYTES)
    text = read(container.header_length(prefix, len(form_at(spec, largest_rank(spec.lora)).header)))
    header = container.decode_header(text)
    found = tuple(TensorSpec(entry.name, entry.shape) for entry in header.entries)
    rank = rank_of(tuple(tensor for tensor in found if len(tensor.shape) == 2)) or spec.lora.r
    if not has_rank(spec.lora, rank):
        raise BadContainer(f"the adapter has rank {rank}, which no adapter of this run has", REMEDY)
    form = form_at(spec, rank)
    if prefix + text != form.header:
        entries = container.pack((tensor.name, "F32", tensor.shape) for tensor in form.tensors)
        difference = container.first_difference(header, entries)
        raise BadContainer(f"the adapter is not of this run's form: {difference}", REMEDY)
    return form
