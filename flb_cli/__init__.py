# SPDX-License-Identifier: Apache-2.0
"""The `flb` command: one module a verb. Heavy imports happen inside the verbs, so that `--help` is quick."""
