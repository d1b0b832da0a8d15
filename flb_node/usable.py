# SPDX-License-Identifier: Apache-2.0
"""Whether a run can use what this node has: told before the node joins, and before the model is in memory.

The tokens that this makes are kept on disk (`flb_node.token_cache`), so the training that follows does not make them
again.
"""

from collections.abc import Sequence

from flb import base_model
from flb.config import Config, require
from flb.spec import RunSpec
from flb_node import bounds, packing, pipeline, remote_code, tokens
from flb_node.examples import Example
from flb_node.token_cache import TokenCache, tokenizer_digest


def check(config: Config, spec: RunSpec, examples: Sequence[Example]) -> None:
    """Refuse what training would refuse, in the order of what it costs to find out.

    Raises Refused for numbers beyond all bounds (`flb_node.bounds`), ConfigError for a rank that the run does not
    allow and for packing where it does not go, WrongBaseModel for another base than the run's, and
    DatasetError for a run that reads beyond the model's context, for preferences without a rejected answer, and for
    data of which nothing is left to learn at the run's length.
    """
    training = spec.training
    bounds.check(spec)
    pipeline.node_rank(spec.lora, config.client.rank)
    packing.check(config.training.packing, config.client.processes, training.objective)
    path = require(config.model.model_path, "model.model_path", "name the folder of the base model")
    tokens.check_context(path, training.max_length)
    base_model.check(path, spec.base)
    trusted = config.model.trust_remote_code
    runs_code = trusted is not None and remote_code.allowed(path, trusted.name, trusted.revision)
    from flb_node import base

    tokenizer = base.load_tokenizer(path, runs_code)
    tokens.use_template(tokenizer, config.dataset.chat_template)
    cache = TokenCache(config.client.workdir / "tokens", tokenizer_digest(path))
    encode_all = cache.encode_pairs if training.objective == "dpo" else cache.encode_all
    encode_all(tokenizer, examples, training.max_length)
