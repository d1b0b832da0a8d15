# SPDX-License-Identifier: Apache-2.0
"""How admitted updates become one: a rule is a function from ring values and weights to ring values."""
