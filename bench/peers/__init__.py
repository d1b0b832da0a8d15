# SPDX-License-Identifier: Apache-2.0
"""Flower and NVFlare on the payload of `bench.transfer`, each in a virtual environment of its own."""
