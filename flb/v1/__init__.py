# SPDX-License-Identifier: Apache-2.0
"""Generated from proto/flb/v1 by `make gen`; never edited."""
