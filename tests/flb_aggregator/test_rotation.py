# SPDX-License-Identifier: Apache-2.0
"""A rotation from every state that a kill can leave, over the registry in memory and real files."""

import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import integers

from flb.errors import ChainUnavailable
from flb.roster import RunView, fold
from flb.types import ZERO_DIGEST, Digest
from flb_aggregator.certificate import Certificates
from flb_aggregator.rotation import RESEND_SECONDS, Rotation, Turn, choose, published
from tests.sim import MemoryRegistry, small_spec

pytestmark = pytest.mark.unit

URI = "192.0.2.1:50051"
A, B = Digest(b"\x0a" * 32), Digest(b"\x0b" * 32)


@dataclass
class World:
    """A work folder and a chain that confirms a block only when told to."""

    folder: Path
    registry: MemoryRegistry = field(default_factory=lambda: MemoryRegistry(small_spec(), ZERO_DIGEST))
    confirmed: int = 0
    clock: float = 1000.0
    lines: list[str] = field(default_factory=list)

    def start(self) -> Rotation:
        """A process that was just started on the folder."""
        return Rotation(URI, Certificates(self.folder), self.registry, self.lines.append, lambda: self.clock)

    def view(self) -> RunView:
        return fold(self.registry.events[: self.confirmed])

    def confirm(self) -> None:
        self.confirmed = len(self.registry.events)

    def check(self, rotation: Rotation) -> None:
        """Whoever reads the confirmed chain or its newest block trusts the served certificate and may open a session."""
        assert rotation.certificates is not None
        served = rotation.certificates.current.digest
        for view in (self.view(), self.registry.view()):
            if view.uri:
                assert served in (view.cert_digest, view.next_cert_digest)
        named = {self.view().cert_digest, self.view().next_cert_digest} - {ZERO_DIGEST}
        assert named | {served} <= rotation.accepted(self.view())


def settle(world: World, rotation: Rotation) -> list[Turn]:
    """Turns, with every block confirmed at once, until nothing is left to do."""
    turns = []
    while True:
        turns.append(rotation.turn(world.view()))
        world.confirm()
        world.check(rotation)
        if turns[-1] is Turn.REST:
            return turns


def test_choose__every_state__has_one_turn() -> None:
    own, waiting = (URI, A, ZERO_DIGEST), (URI, A, B)
    assert choose(own, ("", ZERO_DIGEST, ZERO_DIGEST), requested=False) is Turn.PUBLISH
    assert choose(own, own, requested=False) is Turn.REST
    assert choose(own, own, requested=True) is Turn.PREPARE
    assert choose(waiting, own, requested=False) is Turn.PUBLISH
    assert choose(waiting, waiting, requested=False) is Turn.SWITCH
    assert choose((URI, B, ZERO_DIGEST), waiting, requested=False) is Turn.PUBLISH
    assert choose(("192.0.2.2:1", A, ZERO_DIGEST), own, requested=False) is Turn.PUBLISH


def test_turn__whole_rotation__ends_with_the_new_certificate_on_chain(tmp_path: Path) -> None:
    world = World(tmp_path)
    rotation = world.start()
    assert rotation.certificates is not None
    assert settle(world, rotation) == [Turn.PUBLISH, Turn.REST]
    old = rotation.certificates.current.digest
    assert published(world.view()) == (URI, old, ZERO_DIGEST)
    rotation.request()
    assert settle(world, rotation) == [Turn.PREPARE, Turn.PUBLISH, Turn.SWITCH, Turn.PUBLISH, Turn.REST]
    new = rotation.certificates.current.digest
    assert new != old and published(world.view()) == (URI, new, ZERO_DIGEST)
    events = [(event.cert_digest, event.next_cert_digest) for event in world.registry.events]  # type: ignore[union-attr]
    assert events == [(old, ZERO_DIGEST), (old, new), (new, ZERO_DIGEST)]


@pytest.mark.parametrize("kept", range(5))
@pytest.mark.parametrize("confirms", [True, False])
def test_turn__killed_after_any_turn__goes_on_from_the_files_and_the_chain(
    tmp_path: Path, kept: int, confirms: bool
) -> None:
    world = World(tmp_path)
    rotation = world.start()
    assert rotation.certificates is not None
    settle(world, rotation)
    old = rotation.certificates.current.digest
    rotation.request()
    for _ in range(kept):
        rotation.turn(world.view())
        if confirms:
            world.confirm()
        world.check(rotation)
    again = world.start()
    world.check(again)
    settle(world, again)
    assert again.certificates is not None and not again.certificates.requested()
    new = again.certificates.current.digest
    assert new != old and again.certificates.next is None and published(world.view()) == (URI, new, ZERO_DIGEST)


def test_turn__killed_between_making_and_taking_the_request_back__makes_no_second(tmp_path: Path) -> None:
    world = World(tmp_path)
    rotation = world.start()
    settle(world, rotation)
    assert rotation.certificates is not None
    rotation.certificates.prepare()
    made = rotation.certificates.next_digest
    rotation.certificates.request()  # the file that the kill left
    again = world.start()
    settle(world, again)
    assert again.certificates is not None and again.certificates.current.digest == made


def test_turn__not_confirmed_yet__neither_switches_nor_sends_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    rotation = world.start()
    settle(world, rotation)
    rotation.request()
    turns = [rotation.turn(world.view()) for _ in range(5)]
    assert turns == [Turn.PREPARE, *[Turn.PUBLISH] * 4]
    assert len(world.registry.events) == 2 and rotation.certificates is not None and rotation.certificates.next
    world.clock += RESEND_SECONDS
    rotation.turn(world.view())
    assert len(world.registry.events) == 3, "a reorg may have undone it"


def test_turn__reorg_takes_the_publication_back__is_published_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    rotation = world.start()
    settle(world, rotation)
    world.registry.undo(1)
    world.confirmed = 0
    world.clock += RESEND_SECONDS
    assert rotation.turn(world.view()) is Turn.PUBLISH
    assert published(world.registry.view()) == rotation.own()


def test_turn__another_address__is_published(tmp_path: Path) -> None:
    world = World(tmp_path)
    settle(world, world.start())
    moved = world.start()
    moved.uri = "192.0.2.9:443"
    settle(world, moved)
    assert world.view().uri == "192.0.2.9:443"


def test_turn__chain_away__sends_again(tmp_path: Path) -> None:
    class Away:
        def set_endpoint(self, *_: object) -> None:
            raise ChainUnavailable("it does not answer")

    world = World(tmp_path)
    rotation = world.start()
    rotation.publisher = Away()  # type: ignore[assignment]
    with pytest.raises(ChainUnavailable):
        rotation.turn(world.view())
    rotation.publisher = world.registry
    settle(world, rotation)
    assert published(world.view()) == rotation.own()


def test_plaintext__no_certificates__publishes_zero_and_renews_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    rotation = Rotation("http://127.0.0.1:50051", None, world.registry, world.lines.append, lambda: 0.0)
    assert settle_plain(world, rotation) == ("http://127.0.0.1:50051", ZERO_DIGEST, ZERO_DIGEST)
    rotation.request()
    assert rotation.turn(world.view()) is Turn.REST and "no TLS" in world.lines[-1]
    assert rotation.accepted(world.view()) == {ZERO_DIGEST}


def settle_plain(world: World, rotation: Rotation) -> tuple[str, Digest, Digest]:
    assert rotation.turn(world.view()) is Turn.PUBLISH
    world.confirm()
    assert rotation.turn(world.view()) is Turn.REST
    return published(world.view())


class Kills(RuleBasedStateMachine):
    """Requests, turns, kills, confirmations, reorgs and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.temporary = TemporaryDirectory()
        self.world = World(Path(self.temporary.name))
        self.rotation = self.world.start()

    def teardown(self) -> None:
        self.temporary.cleanup()

    @rule()
    def turn(self) -> None:
        self.rotation.turn(self.world.view())

    @rule()
    def request(self) -> None:
        self.rotation.request()

    @rule()
    def kill(self) -> None:
        self.rotation = self.world.start()

    @rule(blocks=integers(1, 3))
    def confirm(self, blocks: int) -> None:
        self.world.confirmed = min(self.world.confirmed + blocks, len(self.world.registry.events))

    @rule()
    def reorg(self) -> None:
        del self.world.registry.events[self.world.confirmed :]

    @rule()
    def wait(self) -> None:
        self.world.clock += RESEND_SECONDS

    @invariant()
    def named(self) -> None:
        self.world.check(self.rotation)

    @invariant()
    def settles(self) -> None:
        """From here it comes to an end, if nothing more happens: tried on a copy of folder and chain."""
        with TemporaryDirectory() as copy:
            shutil.copytree(self.world.folder, copy, dirs_exist_ok=True)
            registry = dataclasses.replace(self.world.registry, events=list(self.world.registry.events))
            world = World(Path(copy), registry, len(registry.events))
            rotation = world.start()
            settle(world, rotation)
            held = rotation.certificates
            assert held is not None and held.next is None and not held.requested()
            assert published(world.view()) == (URI, held.current.digest, ZERO_DIGEST)


TestKills = Kills.TestCase
TestKills.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
