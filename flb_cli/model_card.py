# SPDX-License-Identifier: Apache-2.0
"""The model card of an exported adapter: what it was made from, by how many, and how to check that."""

import json
from collections.abc import Sequence

from flb.events import ChainRoundRolled
from flb.spec import RunSpec
from flb.types import Digest, Domain
from flb_cli import privacy_report


def model_card(
    spec: RunSpec, spec_digest: Digest, domain: Domain, rolls: Sequence[ChainRoundRolled], nodes: int, rank: int
) -> str:
    """README.md of the folder: YAML for the hub, then a page. `rolls` end with the exported step; `nodes` is how many
    members the registry has, `rank` the adapter's."""
    last = rolls[-1]
    table = "\n".join(
        f"| {step} | {rolled.round} | {rolled.accepted} | {rolled.weight_sum} | `{rolled.adapter_digest.hex()}` "
        f"| `{rolled.record_digest.hex()}` |"
        for step, rolled in enumerate(rolls, 1)
    )
    # JSON strings are YAML strings, so a name with a colon does no harm
    return f"""---
base_model: {json.dumps(spec.base.repo or spec.base.name)}
library_name: peft
pipeline_tag: text-generation
tags: [lora, federated-learning, flb]
---

# Adapter of {_code(spec.base.name)}, step {len(rolls)} of {spec.rounds.steps}

A LoRA adapter that {nodes} nodes trained together, each on data that stayed with it. peft loads it:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("PATH OF THE BASE MODEL"), "PATH OF THIS FOLDER")
```

| | |
|---|---|
| base model | {_code(spec.base.repo or spec.base.name)}{_at(spec.base.revision)} |
| digest of its weights | `{spec.base.digest}` |
| LoRA | rank of this adapter {rank}; the run's: r {spec.lora.r}, alpha {spec.lora.alpha}, dropout {spec.lora.dropout}, mode {spec.lora.mode} |
| target modules | {", ".join(map(_code, spec.lora.target_modules))} |
| rounds | {len(rolls)} sealed of {spec.rounds.steps}; the last one is round {last.round} |
| nodes | {nodes} in the run, {last.accepted} in the last round |
| training | {spec.training.local_steps} steps a round, batch {spec.training.batch_size}, learning rate \
{spec.training.learning_rate:g}, {spec.training.max_length} tokens |
| updates travel as | {spec.codec} |
| privacy: epsilon | {privacy_report.in_words(privacy_report.told(spec, last.accepted, len(rolls)))} |
| contract | `0x{domain.run.hex()}` on chain {domain.chain_id} |
| digest of the run spec | `{spec_digest.hex()}` |
| digest of this adapter | `{last.adapter_digest.hex()}` |

## Rounds

| step | round | updates | weight | adapter (SHA-256) | record (SHA-256) |
|---|---|---|---|---|---|
{table}

`sha256sum adapter_model.safetensors` gives the digest of the last line, which stands on the chain. \
`flb verify 0x{domain.run.hex()}` recomputes all of it from the contract and the run's files.

The base model's licence holds for what is made with this adapter.
"""


def _at(revision: str) -> str:
    return f" at {_code(revision)}" if revision else ""


def _code(text: str) -> str:
    """A name in code type; what would end it, or a cell of a table, is left out."""
    return f"`{''.join(sign for sign in text if sign not in '`|' and sign.isprintable())}`"
