# SPDX-License-Identifier: Apache-2.0
"""Which cache folder an installation of the local chain is: another one as soon as a file differs."""

from pathlib import Path

import pytest

from flb.chain import local
from flb.errors import MissingTool

pytestmark = pytest.mark.unit


def a_source(folder: Path) -> Path:
    """hardhat/ as a checkout has it, with the link to the contracts."""
    source = folder / "hardhat"
    (folder / "contracts" / "interfaces").mkdir(parents=True)
    (folder / "contracts" / "interfaces" / "I.sol").write_text("interface I {}")
    source.mkdir()
    (source / "contracts").symlink_to("../contracts")
    for name in ("package.json", "package-lock.json", "hardhat.config.js", ".npmrc"):
        (source / name).write_text(name)
    return source


@pytest.mark.parametrize(
    "name", ["package.json", "package-lock.json", "hardhat.config.js", ".npmrc", "contracts/interfaces/I.sol"]
)
def test_content__any_file_changed_or_gone__is_another_one(tmp_path: Path, name: str) -> None:
    source = a_source(tmp_path)
    before = local.content(source)
    (source / name).write_text("other")
    changed = local.content(source)
    (source / name).unlink()
    assert len({before, changed, local.content(source)}) == 3


def test_content__what_is_made_from_the_rest__does_not_count(tmp_path: Path) -> None:
    source = a_source(tmp_path)
    before = local.content(source)
    for name in ("node_modules", "artifacts", "cache", "coverage"):
        (source / name).mkdir()
        (source / name / "file").write_text("made")
    assert local.content(source) == before


def test_content__same_files_elsewhere_without_the_link__is_the_same(tmp_path: Path) -> None:
    """A checkout links the contracts, a wheel holds a copy of them."""
    first, second = a_source(tmp_path / "a"), a_source(tmp_path / "b")
    (second / "contracts").unlink()
    (tmp_path / "b" / "contracts").rename(second / "contracts")
    assert local.content(first) == local.content(second)


def test_install__configuration_changed__does_not_take_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = a_source(tmp_path)
    cache = tmp_path / "cache"
    monkeypatch.setattr(local, "sources", lambda: source)
    ready = cache / f"hardhat-{local.content(source)[:16]}"
    (ready / local.CLI).parent.mkdir(parents=True)
    (ready / local.CLI).write_text("")
    said: list[str] = []
    assert local.install(cache, said.append) == ready
    (source / "hardhat.config.js").write_text("other")
    # npm refuses this package.json before it looks at the network
    with pytest.raises(MissingTool, match="npm could not install Hardhat"):
        local.install(cache, said.append)
    assert len(said) == 1
    assert list(cache.iterdir()) == [ready]
