# SPDX-License-Identifier: Apache-2.0
"""Sessions: members only, once, for a while."""

import dataclasses

import pytest

from flb import identity
from flb.errors import BadSignature, NotInCohort, TooManyTries
from flb.types import ZERO_DIGEST, Digest, Member, Session
from flb_aggregator import sessions
from tests.sim import DOMAIN, key_for, key_of, members

pytestmark = pytest.mark.unit

MEMBER = members(2)[0]
MEMBERS = {MEMBER.node: MEMBER}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(made: sessions.Sessions, member: Member = MEMBER, key: bytes | None = None) -> tuple[Session, bytes]:
    nonce, expires = made.challenge(member.node, MEMBERS)
    session = Session(member.node, nonce, ZERO_DIGEST, expires)
    return session, identity.sign(key or key_for(member), DOMAIN, identity.session_hash(session))


def test_open__signed_challenge__gives_a_token_for_an_hour() -> None:
    clock = Clock()
    made = sessions.Sessions(DOMAIN, clock)
    token = made.open(*answer(made), MEMBERS)
    assert made.node_of(token) == MEMBER.node
    clock.now += 3599
    assert made.node_of(token) == MEMBER.node
    clock.now += 2
    assert made.node_of(token) is None and made.node_of("other") is None and made.node_of(None) is None


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


def test_challenge__stranger_or_flood__is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sessions.Sessions(DOMAIN, Clock())
    with pytest.raises(NotInCohort):
        made.challenge(members(2)[1].node, MEMBERS)
    monkeypatch.setattr(sessions, "OPEN_CHALLENGES", 2)
    made.challenge(MEMBER.node, MEMBERS)
    made.challenge(MEMBER.node, MEMBERS)
    with pytest.raises(TooManyTries):
        made.challenge(MEMBER.node, MEMBERS)
