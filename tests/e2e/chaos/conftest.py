# SPDX-License-Identifier: Apache-2.0
"""The undisturbed run that every disturbed one must equal, computed once a session."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flb.types import Digest
from flb_cli.federation import Federation
from tests.chains import cache
from tests.e2e.chaos.disturbed import Disturbed
from tests.e2e.conftest import KEYS

STEPS = 5
SETTINGS = {
    "lora": {"r": 4, "alpha": 4, "mode": "factors"},
    "training": {"local_steps": 2, "batch_size": 2, "learning_rate": 0.01, "max_length": 64},
    "run": {"steps": STEPS, "audit": "public", "codec": "bf16"},
}
Chaos = Callable[..., AbstractContextManager[Disturbed]]
FULL = os.environ.get("FLB_CHAOS") == "full"
"""Whether the long form runs: one kill a run, and every place."""


@pytest.fixture(scope="session")
def chaos(base: Path, datasets: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Chaos:
    """Makes a federation of two nodes that is not started; leaving the block ends it."""

    @contextmanager
    def disturbed(name: str, **options: Any) -> Any:
        folder = tmp_path_factory.mktemp("chaos") / name
        with Federation(folder, base, datasets[:2], SETTINGS, cache(), keys=KEYS) as federation:
            yield Disturbed(federation, **options)

    return disturbed


@pytest.fixture(scope="session")
def reference(chaos: Chaos) -> list[Digest]:
    """Adapter digests of a run that nobody disturbs."""
    with chaos("undisturbed") as run:
        run.start()
        run.finish()
        run.check(run.adapters())
        assert run.deaths == []
        return run.adapters()
