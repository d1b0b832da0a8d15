# SPDX-License-Identifier: Apache-2.0
"""Sessions: members only, once, for a while."""

import dataclasses

import pytest

from flb import identity
from flb.errors import BadSignature, NotInCohort, UnknownRun
from flb.types import ZERO_DIGEST, Address, Digest, Member, Session
from flb_aggregator import sessions
from tests.sim import DOMAIN, key_for, key_of, members

pytestmark = pytest.mark.unit

MEMBER = members(2)[0]
MEMBERS = {MEMBER.node: MEMBER}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(
    made: sessions.Sessions, member: Member = MEMBER, key: bytes | None = None, cert: Digest = ZERO_DIGEST
) -> tuple[Session, bytes]:
    nonce, expires = made.challenge(member.node, MEMBERS)
    session = Session(member.node, nonce, cert, expires)
    return session, identity.sign(key or key_for(member), DOMAIN, identity.session_hash(session))


def test_open__signed_challenge__gives_a_token_for_an_hour() -> None:
    clock = Clock()
    made = sessions.Sessions(DOMAIN, clock)
    token = made.open(*answer(made), MEMBERS)
    assert made.node_of(token, MEMBERS) == MEMBER.node
    clock.now += 3599
    assert made.node_of(token, MEMBERS) == MEMBER.node
    clock.now += 2
    assert (
        made.node_of(token, MEMBERS) is None
        and made.node_of("other", MEMBERS) is None
        and made.node_of(None, MEMBERS) is None
    )


def test_open__a_challenge_twice__is_refused() -> None:
    made = sessions.Sessions(DOMAIN, Clock())
    signed = answer(made)
    made.open(*signed, MEMBERS)
    with pytest.raises(BadSignature, match="unknown, used or over"):
        made.open(*signed, MEMBERS)


def test_open__after_a_minute__is_refused() -> None:
    clock = Clock()
    made = sessions.Sessions(DOMAIN, clock)
    signed = answer(made)
    clock.now += 60
    with pytest.raises(BadSignature, match="unknown, used or over"):
        made.open(*signed, MEMBERS)


def test_open__wrong_key_or_certificate__is_refused_and_uses_the_challenge_up() -> None:
    made = sessions.Sessions(DOMAIN, Clock())
    signed = answer(made, key=key_of(30))
    with pytest.raises(BadSignature, match="not signed by the member's key"):
        made.open(*signed, MEMBERS)
    session, _ = answer(made)
    session = dataclasses.replace(session, cert_digest=Digest(b"\x01" * 32))
    with pytest.raises(BadSignature, match="certificate"):
        made.open(session, b"", MEMBERS)
    assert made.challenges == {}


def test_open__certificates__takes_the_current_and_the_next_and_names_another() -> None:
    now, following, other = (Digest(bytes([number]) * 32) for number in (1, 2, 3))
    made = sessions.Sessions(DOMAIN, Clock(), lambda: {now, following})
    for cert in (now, following):
        assert made.node_of(made.open(*answer(made, cert=cert), MEMBERS), MEMBERS) == MEMBER.node
    for cert in (other, ZERO_DIGEST):
        with pytest.raises(BadSignature, match="names a certificate that is not this aggregator's"):
            made.open(*answer(made, cert=cert), MEMBERS)


@pytest.mark.parametrize(
    ("chain_id", "run"), [(1, bytes(DOMAIN.run)), (DOMAIN.chain_id, b"\x07" * 20), (0, b""), (DOMAIN.chain_id, b"")]
)
def test_check_run__another_registry_or_none__is_refused_with_both(chain_id: int, run: bytes) -> None:
    made = sessions.Sessions(DOMAIN, Clock())
    made.check_run(DOMAIN.chain_id, DOMAIN.run)
    with pytest.raises(UnknownRun) as caught:
        made.check_run(chain_id, run)
    for named in (f"run 0x{run.hex()} on chain {chain_id}", f"run 0x{DOMAIN.run.hex()} on chain {DOMAIN.chain_id}"):
        assert named in str(caught.value)


def test_challenge__stranger__is_refused() -> None:
    made = sessions.Sessions(DOMAIN, Clock())
    with pytest.raises(NotInCohort):
        made.challenge(Address(b"\x01" * 20), MEMBERS)


def test_challenge__flood__drives_out_its_own_and_an_honest_node_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "OPEN_CHALLENGES", 10)
    made = sessions.Sessions(DOMAIN, Clock())
    for _ in range(50):
        made.challenge(MEMBER.node, MEMBERS)
    assert len(made.challenges) == 10
    assert made.node_of(made.open(*answer(made), MEMBERS), MEMBERS) == MEMBER.node


def test_node_of__member_that_left_or_changed_its_key__has_no_session() -> None:
    made = sessions.Sessions(DOMAIN, Clock())
    token = made.open(*answer(made), MEMBERS)
    others = {node: member for node, member in MEMBERS.items() if node != MEMBER.node}
    assert made.node_of(token, others) is None
    changed = dataclasses.replace(MEMBER, key=Address(b"\x07" * 20))
    assert made.node_of(token, {**MEMBERS, MEMBER.node: changed}) is None


def test_open__many_sessions_of_one_member__end_its_oldest() -> None:
    made = sessions.Sessions(DOMAIN, Clock())
    tokens = [made.open(*answer(made), MEMBERS) for _ in range(sessions.NODE_TOKENS + 2)]
    assert [made.node_of(token, MEMBERS) is None for token in tokens] == [True] * 2 + [False] * sessions.NODE_TOKENS
