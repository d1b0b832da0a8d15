# SPDX-License-Identifier: Apache-2.0
"""Federations that are killed, cut, stalled, reordered and starved; each must end with the undisturbed adapter."""
