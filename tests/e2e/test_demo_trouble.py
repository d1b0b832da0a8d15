# SPDX-License-Identifier: Apache-2.0
"""`flb demo --kill` and `--tamper` on a federation of the tiny model: caught in the middle of an upload, and named."""

from dataclasses import asdict
from pathlib import Path

import pytest

from flb_cli.demo_trouble import Ambush, tamper
from flb_cli.federation import Federation
from flb_cli.replay import Report, replay
from flb_cli.verify import from_folder
from tests.chains import cache
from tests.e2e.chaos.conftest import SETTINGS
from tests.e2e.chaos.disturbed import Disturbed
from tests.e2e.conftest import KEYS

pytestmark = pytest.mark.e2e


def report_on(folder: Path) -> Report:
    material = from_folder(folder, None, False)
    return replay(material.events, material.domain, material.fetch)


def test_ambush_and_tamper__whole_run__upload_went_on_and_the_bit_was_named(
    base: Path, datasets: list[Path], tmp_path: Path
) -> None:
    settings = {**SETTINGS, "lora": {"r": 32, "alpha": 32, "mode": "factors"}, "run": {"steps": 3, "audit": "public"}}
    said: list[str] = []
    with Federation(tmp_path / "run", base, datasets[:2], settings, cache(), keys=KEYS) as federation:
        run = Disturbed(federation)
        run.set_up()
        ambush = Ambush(federation, said.append)
        ambush.start()
        run.begin()
        run.wait(lambda: ambush.strike() or federation.view().finished)
        run.finish()
        killed = ambush.end()
        assert killed is not None and killed.went_on and 0 < killed.byte < killed.size, said
        assert report_on(federation.folder).verdict == "exact"
        found = tamper(federation.folder, lambda: report_on(federation.folder))
        assert found["named"] and found["restored"] == "exact" and len(found["findings"]) == 1
        assert (found["round"], asdict(killed)["node"][:2]) == (3, "0x")
        assert found["tensor"] in found["findings"][0] and found["node"] in found["findings"][0]
