# SPDX-License-Identifier: Apache-2.0
"""The node's shell: data, training, key and disk around the core of `flb`. torch stays in trainer and evaluate."""
