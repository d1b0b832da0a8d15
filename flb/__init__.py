# SPDX-License-Identifier: Apache-2.0
"""The protocol of FLB and its mathematics: what two honest parties must agree on, and nothing that runs by itself.

Values: `types`, `events`, `spec`, `errors`. Arithmetic: `delta`, `lora`, `aggregation`, `server_optimizer`, `codec`.
Bytes and signatures: `wire`, `merkle`, `identity`. Decisions: `roster`, `admission`, `records`, `rounds`, `planner`,
`audit`. The only I/O: `store`, `keystore`, `base_model`, `config_file`, `chain`. docs/architecture.md draws the rings.
"""
