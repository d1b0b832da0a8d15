# SPDX-License-Identifier: Apache-2.0
"""How the mean update becomes a step of the adapter (FedOpt, Reddi et al., ICLR 2021, arXiv 2003.00295)."""
