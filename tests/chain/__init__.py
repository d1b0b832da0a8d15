# SPDX-License-Identifier: Apache-2.0
"""Python against a local Hardhat node."""
