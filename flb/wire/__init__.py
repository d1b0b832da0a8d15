# SPDX-License-Identifier: Apache-2.0
"""Bytes: containers, chunks and messages. Nothing here opens a file or a socket."""
