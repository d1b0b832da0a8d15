# SPDX-License-Identifier: Apache-2.0
"""Tests mirror the packages; `sim` is a federation on paper."""
