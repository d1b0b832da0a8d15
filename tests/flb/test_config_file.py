# SPDX-License-Identifier: Apache-2.0
"""config.yaml: defaults, types, and every refusal with its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.config import Config, RemoteCode, refuse_off_chain, require
from flb.config_file import load, parse
from flb.errors import ConfigError
from flb_cli.init import render

pytestmark = pytest.mark.unit

HERE = Path("/somewhere/config.yaml")


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, HERE)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_parse__empty__is_the_defaults() -> None:
    assert parse("", HERE) == parse("# only a comment\n", HERE) == Config()


def test_parse__payout__takes_amounts_of_a_token_with_18_decimals() -> None:
    config = parse("run:\n  payout: {per_round: 1000000000000000000000}\n  min_round_seconds: null\n", HERE)
    assert (config.run.payout.per_round, config.run.min_round_seconds) == (10**21, None)


def test_parse__values__are_typed_and_paths_count_from_the_file() -> None:
    config = parse(
        "dataset_name: data/mine.jsonl\ntraining:\n  learning_rate: 1e-3\nlora:\n"
        "  target_modules: [q_proj, v_proj]\nrun:\n  norm_bound: 16\n  server_optimizer: {learning_rate: 1}\n"
        "model: {model_path: /models/x}\n",
        HERE,
    )
    assert config.dataset_name == Path("/somewhere/data/mine.jsonl")
    assert config.training.learning_rate == 0.001 and config.lora.target_modules == ("q_proj", "v_proj")
    assert config.run.norm_bound == 16 and config.run.server_optimizer.learning_rate == 1.0
    assert config.model.model_path == Path("/models/x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle:\n  r: 1\n", "line 1: unknown key modle: did you mean model?"),
        ("lora:\n  r: 8\n  alhpa: 16\n", "line 3: unknown key lora.alhpa: did you mean lora.alpha?"),
        ("zzz: 1\n", "line 1: unknown key zzz: known here are model,"),
        ("num_clients: three\n", "line 1: num_clients is 'three': give a whole number or null"),
        ("model_path: /x\n", "line 1: unknown key model_path: did you mean model.model_path?"),
        ("lora:\nr: 8\n", "line 2: unknown key r: did you mean lora.r?"),
        ("learning_rate: 1\n", "did you mean training.learning_rate or run.server_optimizer.learning_rate?"),
        ("lora.r: 8\n", "line 1: unknown key lora.r: write lora: and below it, indented, r:"),
        ("? [a]\n: 1\n", "line 1: a key is not a word: write name: value"),
        ("lora:\n  r: true\n", "line 2: lora.r is true: give a whole number"),
        ("lora:\n  r: '8'\n", "line 2: lora.r is '8': give a whole number"),
        ("lora:\n  r: 010\n", "line 2: lora.r is 010: give a whole number"),
        ("lora:\n  r: 1:30\n", "line 2: lora.r is 1:30: give a whole number"),
        ("lora:\n  r: " + 5000 * "9" + "\n", "line 2: lora.r is '99999"),
        ("lora:\n  target_modules: &x [*x]\n", "line 2: lora.target_modules is no list: write a plain value"),
        ("lora: " + 3000 * "[" + 3000 * "]" + "\n", "line 1: it is nested too deeply"),
        ("lora:\n  dropout: much\n", "line 2: lora.dropout is 'much': give a number"),
        (
            "lora:\n  mode: mean\n",
            "line 2: lora.mode is 'mean': give factors or alternate or freeze_a or product or stack",
        ),
        ("lora:\n  target_modules: []\n", "line 2: lora.target_modules is []: give a text or a list of names"),
        (
            "model:\n  trust_remote_code: true\n",
            "line 2: model.trust_remote_code is true: give {name: ..., revision: ...}",
        ),
        (
            "model:\n  trust_remote_code: {name: a/b}\n",
            "line 2: model.trust_remote_code.revision is not set: give the comm",
        ),
        (
            "model:\n  trust_remote_code: {name: a/b, revision: main}\n",
            "trust_remote_code.revision is main: give the commit",
        ),
        ("model:\n  trust_remote_code: {repo: a/b}\n", "line 2: unknown key model.trust_remote_code.repo"),
        ("chain_record: 1\n", "line 1: chain_record is 1: give true or false"),
        ("lora: 8\n", "line 1: lora is not a list of keys"),
        ("- a\n", "line 1: the file is not a list of keys"),
        ("lora:\n  r: 8\n  r: 9\n", "line 3: lora.r stands there twice"),
        ("run:\n  fraction: 0\n", "line 2: run.fraction is 0.0: give a number above 0, at most 1"),
        ("lora:\n  dropout: 1\n", "line 2: lora.dropout is 1.0: give a number from 0 to below 1"),
        ("chain:\n  rpc: ''\n", "line 2: chain.rpc is '': give a text"),
        ("dataset_name: ~nobody-here/x\n", "line 1: dataset_name is '~nobody-here/x': give a path or null"),
        ("dataset_name: 2024-13-45\n", "line 1: dataset_name is '2024-13-45': write a plain value"),
        ("dataset_name: !foo bar\n", "line 1: dataset_name is 'bar': write a plain value"),
        ("training:\n  learning_rate: -1\n", "line 2: training.learning_rate is -1.0: give a number of 0 or more"),
        ("training:\n  learning_rate: .nan\n", "line 2: training.learning_rate is .nan: give a number"),
        ("training:\n  learning_rate: " + 400 * "9" + "\n", "line 2: training.learning_rate is 999"),
        ("run:\n  payout: {per_round: 1" + 78 * "0" + "}\n", "give a number below 2^256"),
        ("run:\n  payout: {per_round: -1}\n", "line 2: run.payout.per_round is -1: give 0 or more"),
        ("run:\n  payout: {token: coin}\n", "line 2: run.payout.token is 'coin': give an address"),
        ("run:\n  min_round_seconds: -1\n", "line 2: run.min_round_seconds is -1: give 0 or more"),
        ("run:\n  scoring: {rule: mood}\n", "line 2: run.scoring.rule is 'mood'"),
        ("run:\n  steps: 5000000000\n", "line 2: run.steps is 5000000000: give a number below 2^32"),
        ("lora:\n  r: 0\n", "line 2: lora.r is 0: give at least 1"),
        ("training:\n  learning_rate: 1e38\n", "line 2: training.learning_rate is 1e+38: give at most 1,000"),
        ("training:\n  fedprox_mu: 1e39\n", "line 2: training.fedprox_mu is 1e+39: give at most 1,000,000"),
        ("training:\n  dpo_beta: 1e39\n", "line 2: training.dpo_beta is 1e+39: give at most 1,000"),
        ("lora:\n  alpha: 4294967295\n", "line 2: lora.alpha is 4294967295: give at most 1,048,576"),
        (
            "run:\n  server_optimizer:\n    learning_rate: 1e308\n",
            "line 3: run.server_optimizer.learning_rate is 1e+308: give at most 1,000",
        ),
        ("run:\n  value_bound: 3\n", "line 2: run.value_bound is 3: give a power of two"),
        ("training:\n  seed: -1\n", "line 2: training.seed is -1: give 0 or more"),
        ("chain:\n  run: '0x12'\n", "line 2: chain.run is '0x12': give an address"),
        ("lora:\n\tr: 8\n", "line 2: found character '\\t' that cannot start any token: indent with spaces, not tabs"),
        ("a: [1\n", "correct the line"),
    ],
)
def test_parse__mistake__names_line_and_remedy(text: str, words: str) -> None:
    assert words in refusal(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("dataset_name\uff1a data.jsonl\n", 1),
        ("num_clients: 3\ndataset_name\uff1a data.jsonl\n", 2),
        ("lora:\n  r\uff1a 8\n", 2),
        ("lora:\n  r: 8\n  alpha\uff1a 8\n", 3),
        ("lora:\n  alpha\uff1a 8\n  r: 8\n", 2),
        ("lora:\n  r: 8\n  alpha\uff1a8\nrun:\n  steps: 3\n", 3),
        ("num_clients: null\nlora\uff1a\n  r: 8\n", 2),
        ("num_clients: null\nlora: {r\uff1a 8}\n", 2),
    ],
)
def test_parse__full_width_colon__is_named_as_such(text: str, line: int) -> None:
    sentence = refusal(text)
    assert "full-width colon" in sentence and "write an ordinary colon" in sentence
    assert f"line {line}:" in sentence


def test_parse__full_width_colon_elsewhere__is_no_matter() -> None:
    config = parse("# \u8bf4\u660e\uff1a\ndataset_name: data\uff1ax.jsonl  # r\uff1a8\n", HERE)
    assert config.dataset_name == Path("/somewhere/data\uff1ax.jsonl")
    assert "full-width" not in refusal("lora:\n  r: 8  # r\uff1a8\n  alpha: [1\n")


def test_parse__what_yaml_reads_otherwise__is_what_stands_there() -> None:
    run = "0x52908400098527886E0F7030069857D2E4169EE7"
    config = parse(
        f"run:\n  audit: off\n  weight_cap: 65_536\nchain:\n  run: {run}\ndataset_name: 2026-11-24\n"
        "training:\n  learning_rate: '2e-4'\n",
        HERE,
    )
    assert config.run.audit == "off" and config.run.weight_cap == 65_536 and config.chain.run == run
    assert config.dataset_name == Path("/somewhere/2026-11-24") and config.training.learning_rate == 2e-4


def test_parse__section_without_keys__is_its_defaults() -> None:
    assert parse("lora:\n  # r: 8\nrun:\n", HERE) == Config()


@pytest.mark.parametrize(("written", "norm"), [("auto", "auto"), ("2.5", 2.5), ("1", 1.0)])
def test_parse__clip_norm__is_a_number_or_auto(written: str, norm: object) -> None:
    assert parse(f"client:\n  local_dp: true\n  clip_norm: {written}\n", HERE).client.clip_norm == norm


@pytest.mark.parametrize(
    "line", ["clip_norm: 0", "clip_norm: -1", "target_epsilon: 0", "delta: 0", "delta: 1", "noise: strong", "delta: 2"]
)
def test_parse__privacy_that_no_run_has__is_refused_with_its_line(line: str) -> None:
    assert f"line 2: client.{line.partition(':')[0]} is" in refusal(f"client:\n  {line}\n")


@pytest.mark.parametrize(
    "line",
    ["central: some", "clip_norm: 0", "target_epsilon: 0", "delta: 1", "quantile: 1", "rate: 0", "bits_noise: -1",
     "noise_multiplier: 0", "denominator: 0"],
)  # fmt: skip
def test_parse__central_privacy_that_no_run_has__is_refused_with_its_line(line: str) -> None:
    assert f"line 2: privacy.{line.partition(':')[0]} is" in refusal(f"privacy:\n  {line}\n")


@pytest.mark.parametrize(("written", "expected"), [("8", 8), ("4", 4), ("null", None)])
def test_parse__quantization__is_a_number_of_bits_or_null(written: str, expected: int | None) -> None:
    assert parse(f"model:\n  quantization: {written}\n", HERE).model.quantization == expected


def test_parse__quantization_that_is_not_there__names_the_choices() -> None:
    assert "model.quantization is 16: give 8 or 4 or null" in refusal("model:\n  quantization: 16\n")


PIECES = st.sampled_from(
    ["!x y", "!!set {a}", "!!int x", "!!binary \u00e9", "&a [*a]", "*a", "2026-13-45", "2026-11-24", ".nan", ".inf", "1e999", "0x1f",
     "0b2", "010", "1:30", "off", "~", "~x/y", "-1", "''", "[]", "{}", "[[]]", "{a: b}", "- a", "? [a]", "|", ">", "'", "#", "<<: *a",
     "\t", "\n", "\uff1a", ":", "---", "%", "\x00", "\ufeff", "\u2028", 9 * "9", 5000 * "9", 3000 * "["]
)  # fmt: skip
LINES = render().splitlines()


@given(st.lists(st.tuples(st.sampled_from(range(len(LINES))), st.booleans(), PIECES), min_size=1, max_size=3))
def test_parse__damaged_file__ends_in_a_config_or_in_one_sentence(damage: list[tuple[int, bool, str]]) -> None:
    lines = list(LINES)
    for at, as_value, piece in damage:
        key, colon, _ = lines[at].partition(":")
        lines[at] = f"{key}: {piece}" if as_value and colon else piece + lines[at]
    try:
        sentence = "" if isinstance(parse("\n".join(lines), HERE), Config) else "neither"
    except ConfigError as error:
        sentence = str(error)
    assert not sentence or ("/somewhere/config.yaml, line " in sentence and len(sentence) < 400)


def test_load__missing_or_binary__is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: make one with flb init"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "binary.yaml")


def test_refuse_off_chain__false__is_refused() -> None:
    refuse_off_chain(Config())
    with pytest.raises(ConfigError, match="a daemon always records on the chain"):
        refuse_off_chain(parse("chain_record: false\n", HERE))
    with pytest.raises(ConfigError, match="num_clients is for flb simulate: remove it"):
        refuse_off_chain(parse("num_clients: 3\n", HERE))


def test_require__absent__names_the_key() -> None:
    assert require(5, "x", "y") == 5
    with pytest.raises(ConfigError, match="client.keystore is not set: make one"):
        require(None, "client.keystore", "make one")


def test_parse__code_that_may_run__is_named_by_repository_and_commit() -> None:
    config = parse(f"model:\n  trust_remote_code: {{name: a/b, revision: {'ab' * 20}}}\n", Path("c.yaml"))
    assert config.model.trust_remote_code == RemoteCode(name="a/b", revision="ab" * 20)
    assert parse("model:\n  trust_remote_code: null\n", Path("c.yaml")).model.trust_remote_code is None
