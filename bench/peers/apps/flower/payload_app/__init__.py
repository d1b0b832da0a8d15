# SPDX-License-Identifier: Apache-2.0
"""The two halves of the Flower App."""
