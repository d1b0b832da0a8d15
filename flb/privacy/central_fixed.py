# SPDX-License-Identifier: Apache-2.0
"""Central privacy with a fixed clip norm: DP-FedAvg (McMahan et al., arXiv 1710.06963) with equal weights.

The aggregator clips every update to C, adds them up, adds noise of deviation zC once, and divides by a number that the
spec fixes. `flb.privacy.central` has the numbers that both central mechanisms share.
"""

from flb.capabilities import PrivacyCapabilities

CAPABILITIES = PrivacyCapabilities(central=True)
