# SPDX-License-Identifier: Apache-2.0
"""The registry on an EVM chain: reading its events, sending transactions, and a local chain. web3 lives here alone."""
