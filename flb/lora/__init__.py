# SPDX-License-Identifier: Apache-2.0
"""LoRA: which tensors an adapter has, which of them a step sends, and where adapter 0 comes from."""
