# SPDX-License-Identifier: Apache-2.0
"""The aggregator's shell: sockets, disk, key and clock around the core of `flb`. It needs no torch."""
