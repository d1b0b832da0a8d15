# SPDX-License-Identifier: Apache-2.0
"""What is there is found by its name, and what is not is left out."""

from pathlib import Path

import pytest

from flb.legality.declarations import DECLARED, NONE, declared
from flb.spec_sections import AGGREGATION_RULES, MIXINGS, PRIVACY_MECHANISMS, SERVER_OPTIMIZERS
from flb.types import Codec, LoraMode
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def test_declared__every_word_of_the_spec__has_its_declaration() -> None:
    assert list(DECLARED.modes) == [mode.value for mode in LoraMode]
    assert tuple(DECLARED.rules) == AGGREGATION_RULES and tuple(DECLARED.mixings) == MIXINGS
    assert tuple(DECLARED.optimizers) == SERVER_OPTIMIZERS
    assert list(DECLARED.codecs) == [codec.name.lower() for codec in Codec]
    assert tuple(DECLARED.privacies) == PRIVACY_MECHANISMS and small_spec().privacy.mechanism == NONE


def test_declared__word_without_a_file_or_without_capabilities__is_left_out() -> None:
    assert declared("flb.aggregation", ("mean", "no_such_rule", "gram")) == {"mean": DECLARED.rules["mean"]}
    assert declared("flb.no_such_package", ("mean",)) == {}


def test_declared__file_that_misses_something_itself__is_no_missing_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_methods").mkdir()
    (tmp_path / "broken_methods" / "__init__.py").touch()
    (tmp_path / "broken_methods" / "rule.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        declared("broken_methods", ("rule",))
