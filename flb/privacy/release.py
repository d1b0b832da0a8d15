# SPDX-License-Identifier: Apache-2.0
"""One noised update: delta → ring → clip → noise, all in integers; what the codec does after it is post-processing.

Every node releases something, whatever its training gave: an update with a NaN, an infinity or a value beyond the ring
is released as zeros, so that the noise hides that too.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from flb.delta import Float32, Int64, check_bound, to_ring
from flb.errors import NotFinite, ValueTooLarge
from flb.privacy import local
from flb.privacy.clip import clip_factor, ring_norm
from flb.privacy.discrete_gaussian import Noise
from flb.spec_sections import PrivacySpec, RingSpec

Updates = Callable[[], Iterable[Float32]]
"""Walks through the update's tensors in file order, from the start at every call; each is finite float32 or not."""


class Release:
    """The noised tensors of one update, in file order.

    `key` is drawn for this update alone. `dropped` says why the update counts as zeros, for the node's own log; it depends
    on the data and must not leave the device.
    """

    def __init__(self, updates: Updates, privacy: PrivacySpec, ring: RingSpec, key: bytes) -> None:
        """Measures, and verifies what the clipping gives. Raises Refused for noise that does not fit the ring."""
        self._ring = ring
        self._largest = local.room_for_values(privacy, ring)
        self._noise = Noise(local.sigma(privacy, ring), key)
        self.dropped = ""
        try:
            self._factor = clip_factor(lambda: self._in_ring(updates), ring_norm(privacy.clip_norm, ring.fraction_bits))
        except (NotFinite, ValueTooLarge) as error:
            self.dropped = error.what

    def _in_ring(self, updates: Updates) -> Iterator[Int64]:
        bound = self._largest * 2.0**-self._ring.fraction_bits
        for values in updates():
            flat = values.reshape(-1)
            check_bound(flat, bound, "of the update")
            yield to_ring(flat, self._ring.fraction_bits, np.empty(flat.size, dtype=np.int64))

    def noised(self, update: Float32) -> Float32:
        """The next tensor, clipped and noised, flat, as the nearest float32. The noise goes on where it stopped, so every
        tensor is given once and in order."""
        flat = update.reshape(-1)
        values = np.zeros(flat.size, dtype=np.int64)
        if not self.dropped:
            self._factor.apply(to_ring(flat, self._ring.fraction_bits, values))
        self._noise.add(values)
        out = values.astype(np.float64)  # exact below 2^53, and rounds publicly above
        out *= 2.0**-self._ring.fraction_bits
        return out.astype(np.float32)
