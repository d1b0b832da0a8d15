# SPDX-License-Identifier: Apache-2.0
"""The chain's fixtures for the tests of this folder."""

from tests.chains import chain, deployed, factory, rpc

__all__ = ["chain", "deployed", "factory", "rpc"]
