# SPDX-License-Identifier: Apache-2.0
"""The run spec: canonical bytes, strict reading, refusals."""

import dataclasses
import json
from typing import Any

import pytest

from flb import spec as specs
from flb.errors import BadMessage, Refused
from flb.types import TensorSpec
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def changed(path: str, value: Any) -> bytes:
    """The small spec with one field replaced, canonical again."""
    fields = json.loads(small_spec().encode())
    inner = fields
    *folders, name = path.split(".")
    for folder in folders:
        inner = inner[folder]
    inner[name] = value
    import rfc8785

    return rfc8785.dumps(fields)


def test_decode__own_bytes__round_trip() -> None:
    spec = small_spec()
    assert specs.decode(spec.encode()) == spec
    assert specs.digest_of(spec.encode()) == specs.digest_of(specs.decode(spec.encode()).encode())


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("extra", 1, "field extra is unknown"),
        ("lora.r", "8", "lora.r. is not of type int"),
        ("training.local_steps", 2.5, "is not of type int"),
        ("version", 2, "version 2, this program reads 4"),
        ("tensors", {}, "not a list"),
    ],
)
def test_decode__wrong_form__names_the_field(path: str, value: Any, words: str) -> None:
    with pytest.raises(BadMessage, match=words):
        specs.decode(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("ring.value_bound", 3, "power of two"),
        ("ring.norm_bound", 0, "power of two"),
        ("ring.weight_cap", 1 << 18, "may overflow 63 bits"),
        ("codec", "int8", "choose f32, bf16, mxint8 or mxint4"),
        ("lora.mode", "mean", "choose factors, alternate, freeze_a, product or stack"),
        ("server_optimizer.name", "lamb", "choose sgd, momentum, nesterov, adagrad, adam or yogi"),
        ("lora.ranks", [2, 1], "list different ranks from 1 to lora.r"),
        ("lora.energy", 1.5, "choose a share above 0"),
        ("lora.residual_rank", -1, "choose 0 or more"),
        ("aggregation.rule", "vote", "choose mean, median"),
        ("aggregation.byzantine", -1, "choose 0 or more"),
        ("aggregation.radius", -0.5, "at least 0"),
        ("server_optimizer.beta2", 1.0, "from 0 to below 1"),
        ("server_optimizer.tau", -1.0, "at least 0"),
        ("training.objective", "ppo", "choose sft or dpo"),
        ("training.lr_schedule", "step", "choose constant, linear or cosine"),
        ("training.optimizer_state", "sent", "choose reset or keep"),
        ("training.local_steps", 0, "local_steps and batch_size must be at least 1"),
        ("training.local_epochs", -1, "local_epochs is -1"),
        ("training.warmup_steps", 7, "at most the run's 6 optimizer steps"),
        ("training.fedprox_mu", -0.5, "must not be negative"),
        ("training.dpo_beta", 0.0, "dpo_beta must be above 0"),
        ("audit", "all", "members, public or off"),
        ("down", "mxint4", "f32 or mxint8"),
        ("rounds.fraction", 0.0, "above 0"),
        ("rounds.steps", 0, "at least 1"),
        ("scoring.rule", "by_mood", "choose capped_examples or uploads_bytes_examples"),
        ("scoring.round_payout", "", "no whole number"),
        ("scoring.round_payout", "01", "no whole number"),
        ("scoring.round_payout", "-1", "no whole number"),
        ("scoring.round_payout", "٣", "no whole number"),
        ("scoring.round_payout", "9" * 5000, "no whole number"),
        ("scoring.round_payout", str(2**256 // 3 + 1), "do not fit 256 bits"),
    ],
)
def test_decode__values_that_break_the_run__are_refused(path: str, value: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        specs.decode(changed(path, value))


def test_decode__not_canonical_or_not_json__is_refused() -> None:
    for bad in (small_spec().encode() + b"\n", b"{", b"\xff", b"[]"):
        with pytest.raises(BadMessage):
            specs.decode(bad)


def test_check__largest_legal_weight_cap__is_named() -> None:
    spec = small_spec()
    ring = dataclasses.replace(spec.ring, weight_cap=1 << 40)
    with pytest.raises(Refused, match="at most 131071"):
        specs.check(dataclasses.replace(spec, ring=ring))


def test_check__a_tensor_named_like_scales__is_refused() -> None:
    tensors = (TensorSpec("t", (32,)), TensorSpec("t.scale", (1,)))
    with pytest.raises(Refused, match="named like a codec's scales"):
        specs.check(dataclasses.replace(small_spec(), tensors=tensors))


def test_check__step_that_no_scale_holds__is_refused_where_it_travels_encoded() -> None:
    huge = dataclasses.replace(small_spec().server_optimizer, learning_rate=1e35)
    specs.check(dataclasses.replace(small_spec(), server_optimizer=huge))
    with pytest.raises(Refused, match="lower the learning rate"):
        specs.check(dataclasses.replace(small_spec(down="mxint8"), server_optimizer=huge))
