# SPDX-License-Identifier: Apache-2.0
"""Differential privacy: clip, noise, accounting and the ledger, one algorithm a file (docs/privacy.md)."""
