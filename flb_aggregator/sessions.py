# SPDX-License-Identifier: Apache-2.0
"""Who may read: single-use challenges and tokens, in memory. A token can read and waste quota, never submit."""

import secrets
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

from flb.errors import BadSignature, NotInCohort, UnknownRun
from flb.identity import recover, session_hash
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Member, Seconds, Session

CHALLENGE_SECONDS = 60
TOKEN_SECONDS = 3600
NODE_TOKENS = 4
"""Sessions of one member; a newer one ends the oldest."""
OPEN_CHALLENGES = 10_000
"""More at once drive out the oldest: a challenge costs an unknown caller nothing."""


@dataclass(slots=True)
class Sessions:
    """Challenges and tokens of one aggregator. `now` gives Unix seconds."""

    domain: Domain
    now: Callable[[], float]
    certificates: Callable[[], Set[Digest]] = lambda: frozenset({ZERO_DIGEST})
    """Digests of the certificates that nodes may see here; the zero digest stands for plaintext."""
    challenges: dict[Digest, tuple[Address, int]] = field(default_factory=dict)
    tokens: dict[str, tuple[Member, float]] = field(default_factory=dict)
    """Who the member was when the token was given, and when it ends; in the order in which they were given."""

    def check_run(self, chain_id: int, run: bytes) -> None:
        """Raise UnknownRun unless a caller follows this aggregator's registry; 0 and no bytes stand for none."""
        own = self.domain
        if (chain_id, run) != (own.chain_id, own.run):
            raise UnknownRun(
                f"the session names run 0x{run.hex()} on chain {chain_id}, "
                f"and this aggregator serves run 0x{own.run.hex()} on chain {own.chain_id}",
                "correct chain.rpc and chain.run",
            )

    def challenge(self, node: Address, members: Mapping[Address, Member]) -> tuple[Digest, Seconds]:
        """A fresh nonce for a member, and when it ends."""
        if node not in members:
            raise NotInCohort(f"0x{node.hex()} is no member of this run", "join the run first")
        now = self.now()
        self.challenges = {nonce: item for nonce, item in self.challenges.items() if item[1] > now}
        if len(self.challenges) >= OPEN_CHALLENGES:  # a flood drives out its own: an honest node answers at once
            del self.challenges[next(iter(self.challenges))]
        nonce, expires = Digest(secrets.token_bytes(32)), Seconds(int(now) + CHALLENGE_SECONDS)
        self.challenges[nonce] = (node, expires)
        return nonce, expires

    def open(self, session: Session, signature: bytes, members: Mapping[Address, Member]) -> str:
        """The token for a signed challenge; the challenge is used up whatever comes of it."""
        known = self.challenges.pop(session.nonce, None)
        if known != (session.node, session.expires) or session.expires <= self.now():
            raise BadSignature("the challenge is unknown, used or over", "ask for a new one")
        member = members.get(session.node)
        if member is None:
            raise NotInCohort(f"0x{session.node.hex()} is no member of this run", "join the run first")
        if session.cert_digest not in self.certificates():
            raise BadSignature("the session names a certificate that is not this aggregator's", "connect again")
        if recover(self.domain, session_hash(session), signature) != member.key:
            raise BadSignature("the session is not signed by the member's key", "sign with the node's key")
        now = self.now()
        self.tokens = {token: item for token, item in self.tokens.items() if item[1] > now}
        token = secrets.token_hex(32)
        own = [token for token, item in self.tokens.items() if item[0].node == session.node]
        for old in own[: max(0, len(own) + 1 - NODE_TOKENS)]:
            del self.tokens[old]
        self.tokens[token] = (member, now + TOKEN_SECONDS)
        return token

    def node_of(self, token: str | None, members: Mapping[Address, Member]) -> Address | None:
        """Whose token it is; None for none, an unknown or old one, and a member that left or changed its key."""
        known = self.tokens.get(token or "")
        if known is None or known[1] <= self.now():
            return None
        now = members.get(known[0].node)
        return now.node if now is not None and now.key == known[0].key else None
