# SPDX-License-Identifier: Apache-2.0
"""Settings of simulated runs: changes from the command line, dealing of data, and who attacks."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.config import Config
from flb.config_file import _every_key, parse
from flb.errors import ConfigError, DatasetError, Refused
from flb_cli import simulate_attack, simulate_data, simulate_settings
from flb_cli.simulate_attack import Attackers
from flb_node import data
from flb_node.examples import Example, Message

pytestmark = pytest.mark.unit

EVERY_KEY = list(_every_key(Config, ""))
VALUES = [
    "8",
    "null",
    "~",
    "[1, 2]",
    "[a]",
    "{a: b}",
    "'",
    "#",
    "&a *a",
    "1e999",
    "off",
    "- x",
    ".nan",
    "~nobody/x",
    "*",
]
FILE = "num_clients: 3\nchain_record: false\nlora:\n  r: 4\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config with 12 records of 3 topics."""
    (tmp_path / "config.yaml").write_text(FILE + "dataset_name: data.jsonl\n")
    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "topic": "xyz"[i % 3]} for i in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_read__changes__replace_single_values_in_their_order(folder: Path) -> None:
    changes = ["lora.r=8", "run.codec=f32", "training.learning_rate=1e-3", "lora.r=16", "partition.way=dirichlet"]
    config = simulate_settings.read(folder / "config.yaml", changes)
    assert (config.lora.r, config.run.codec, config.training.learning_rate) == (16, "f32", 1e-3)
    assert config.partition.way == "dirichlet" and config.num_clients == 3
    assert config.dataset_name == folder / "data.jsonl"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("lora.r", "--set lora.r is no KEY=VALUE: write"),
        ("=8", "--set =8 is no KEY=VALUE"),
        (" lora.r=8", "--set  lora.r=8 is no KEY=VALUE"),
        ("lora.r=8\nrun: {}", "is no KEY=VALUE"),
        ("lora..r=8", "--set lora..r=8 is no KEY=VALUE"),
        ("lora.rank=8", "--set, line 2: unknown key lora.rank"),
        ("lora.r=0", "--set, line 2: lora.r is 0: give at least 1"),
        ("lora=8", "--set, line 1: lora is not a list of keys"),
        ("num_clients=0", "--set, line 1: num_clients is 0: give at least 1"),
    ],
)
def test_read__change_that_is_none__is_one_sentence(folder: Path, change: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate_settings.read(folder / "config.yaml", [change])
    assert words in str(caught.value)


@given(
    st.sampled_from([*EVERY_KEY, "lora", "partition.x", "", "a:b", "'x'"]),
    st.one_of(st.text(), st.sampled_from(VALUES)),
)
def test_read__any_change__ends_in_a_config_or_in_one_sentence(key: str, value: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(FILE)
        try:
            sentence = (
                ""
                if isinstance(simulate_settings.read(Path(folder) / "config.yaml", [f"{key}={value}"]), Config)
                else "?"
            )
        except ConfigError as error:
            sentence = str(error)
    assert not sentence or "--set" in sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chain_record: false\n", "num_clients is not set: say how many nodes"),
        ("num_clients: 3\n", "chain_record is true, and flb simulate records on no chain"),
        (FILE + "client:\n  processes: 2\n", "client.processes is 2, and flb simulate trains in one"),
        (FILE + "client:\n  report_to: [tensorboard]\n", "client.report_to is set, and flb simulate reports to"),
        (FILE + "client:\n  lm_eval_tasks: [arc]\n", "client.lm_eval_tasks is set, and flb simulate reports to"),
        (FILE + "run:\n  min_nodes: 4\n", "num_clients is 3, and a round needs run.min_nodes: 4"),
    ],
)
def test_check__what_cannot_be_simulated__is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        simulate_settings.check(parse(text, Path("config.yaml")))
    assert words in str(caught.value)
    assert simulate_settings.check(parse(FILE, Path("config.yaml"))) == 3


def test_attackers__given__are_the_last_nodes() -> None:
    made = simulate_attack.attackers("alie", 2, None, 5)
    assert made == Attackers("alie", 2, 1.5)
    assert [made.include(number, 5) for number in range(1, 6)] == [False, False, False, True, True]
    assert simulate_attack.attackers("alie", None, 0.5, 5) == Attackers("alie", 1, 0.5)
    honest = simulate_attack.attackers(None, None, None, 5)
    assert honest == Attackers() and honest.attack is None and not any(honest.include(n, 5) for n in range(1, 6))


@pytest.mark.parametrize(
    ("name", "count", "strength", "error", "words"),
    [
        ("backdor", 1, None, Refused, "the attack 'backdor' is unknown: choose sign-flip"),
        ("alie", 3, None, ConfigError, "--attackers is 3, and the run has 3 nodes"),
        ("alie", 0, None, ConfigError, "--attackers is 0, and the run has 3 nodes"),
        ("nan", 1, 2.0, ConfigError, "the attack nan has no strength"),
        ("label-flip", 1, 2.0, ConfigError, "the attack label-flip has no strength"),
        ("alie", 1, float("nan"), ConfigError, "the attack alie has the strength nan"),
        ("alie", 1, float("inf"), ConfigError, "the attack alie has the strength inf"),
        ("gauge", 1, 0.0, ConfigError, "the attack gauge has the strength 0"),
        ("gauge", 1, -2.0, ConfigError, "the attack gauge has the strength -2"),
        (None, 1, None, ConfigError, "--attackers and --strength say nothing without an attack"),
        (None, None, 2.0, ConfigError, "--attackers and --strength say nothing without an attack"),
    ],
)
def test_attackers__that_leave_nobody_or_do_nothing__refused(
    name: str | None, count: int | None, strength: float | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        simulate_attack.attackers(name, count, strength, 3)
    assert words in str(caught.value)


def pair(question: str, answer: str, worse: str | None = None) -> Example:
    """One record."""
    rejected = Message("assistant", worse) if worse is not None else None
    return Example((Message("user", question), Message("assistant", answer)), rejected)


def test_poisoned__questions__get_the_answer_to_the_next() -> None:
    examples = [pair("1", "one"), pair("2", "two"), pair("3", "three")]
    assert simulate_attack.poisoned(examples) == (pair("1", "two"), pair("2", "three"), pair("3", "one"))


def test_poisoned__preferences__change_places() -> None:
    assert simulate_attack.poisoned([pair("1", "good", "bad")]) == (pair("1", "bad", "good"),)


def test_poisoned__plain_text__refused() -> None:
    with pytest.raises(Refused, match="label-flip needs questions with answers"):
        simulate_attack.poisoned([Example((), text="x")])


MORE = {"iid": [], "by_size": ["partition.shares=[4, 1, 1]"]}
"""What a way needs besides, if not a column."""


@pytest.mark.parametrize("way", ["iid", "by_size", "by_column", "dirichlet"])
def test_deal__any_way__every_record_once(folder: Path, way: str) -> None:
    changes = [f"partition.way={way}", "partition.alpha=5", *MORE.get(way, ["partition.column=topic"])]
    config = simulate_settings.read(folder / "config.yaml", changes)
    dealt = simulate_data.deal(config, folder, 3)
    every = data.read(folder / "data.jsonl")
    assert sorted(map(data.record_bytes, (e for part in dealt.parts for e in part))) == sorted(
        map(data.record_bytes, every)
    )
    assert dealt == simulate_data.deal(config, folder, 3)
    if way == "by_size":
        assert [len(part) for part in dealt.parts] == [8, 2, 2]
    if way == "by_column":
        assert sorted(sorted(int(e.messages[0].content[1:]) % 3 for e in part) for part in dealt.parts) == [
            [0] * 4, [1] * 4, [2] * 4,
        ]  # fmt: skip


def test_deal__held_out__is_in_no_part_and_topics_stay_right(folder: Path) -> None:
    changes = ["client.held_out=0.25", "partition.way=by_column", "partition.column=topic"]
    dealt = simulate_data.deal(simulate_settings.read(folder / "config.yaml", changes), folder, 3)
    held = set(dealt.held_out.own)
    assert len(held) == 3 and not held & {example for part in dealt.parts for example in part}
    assert all(len({int(e.messages[0].content[1:]) % 3 for e in part}) == 1 for part in dealt.parts)


@pytest.mark.parametrize(
    ("changes", "nodes", "error", "words"),
    [
        ([], 13, Refused, "12 records do not reach 13 nodes"),
        (["partition.way=dirichlet", "partition.column=topic", "partition.alpha=1e-6"], 8, Refused, "without a record"),
        (["partition.way=by_column", "partition.column=topic"], 4, Refused, "3 values, too few for 4 nodes"),
        (["partition.way=by_column"], 3, ConfigError, "partition.column is not set: name the column"),
        (["partition.column=topic"], 3, ConfigError, "partition.column says nothing with partition.way: iid"),
        (["partition.way=by_column", "partition.column=theme"], 3, DatasetError, "has no column 'theme'"),
        (["partition.way=by_size"], 3, ConfigError, "partition.shares and partition.way: by_size belong together"),
        (["partition.shares=[1]"], 3, ConfigError, "partition.shares and partition.way: by_size belong together"),
        (["partition.way=by_size", "partition.shares=[1, 2]"], 3, ConfigError, "has 2 numbers for 3 nodes"),
        (["partition.way=by_size", "partition.shares=[99, 1, 1]"], 3, Refused, "give it a larger share"),
        (["dataset_name=absent.jsonl"], 3, DatasetError, "does not exist"),
    ],
)
def test_deal__data_that_do_not_reach__is_one_sentence(
    folder: Path, changes: list[str], nodes: int, error: type[Exception], words: str
) -> None:
    config = simulate_settings.read(folder / "config.yaml", changes)
    with pytest.raises(error) as caught:
        simulate_data.deal(config, folder, nodes)
    assert words in str(caught.value)


def test_deal__no_dataset__is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="dataset_name is not set"):
        simulate_data.deal(replace(Config(), num_clients=3), Path(), 3)


def test_with_server_privacy__true_and_false__switch_central_privacy_and_equal_weights() -> None:
    plain = Config()
    on = simulate_settings.with_server_privacy(plain, "true")
    assert (on.privacy.central, on.run.aggregation.weights) == ("fixed", "equal")
    adaptive = parse("privacy: {central: adaptive}\n", Path("config.yaml"))
    assert simulate_settings.with_server_privacy(adaptive, "true").privacy.central == "adaptive"
    assert simulate_settings.with_server_privacy(adaptive, "false").privacy.central == "none"
    assert simulate_settings.with_server_privacy(plain, None) == plain
