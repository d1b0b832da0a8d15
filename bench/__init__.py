# SPDX-License-Identifier: Apache-2.0
"""Every claim about speed, memory or gas as a script with JSON on stdout: `python -m bench.NAME`."""
