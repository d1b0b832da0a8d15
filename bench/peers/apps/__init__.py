# SPDX-License-Identifier: Apache-2.0
"""What runs inside a peer's virtual environment; nothing here imports FLB's own packages or their dependencies."""
