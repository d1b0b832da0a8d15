# SPDX-License-Identifier: Apache-2.0
"""Several processes, a real chain, and what breaks between them."""
