# SPDX-License-Identifier: Apache-2.0
"""EIP-712 by hand against a general encoder, and signatures that must not pass."""

import builtins
import importlib
import sys
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from flb import identity
from flb.errors import BadSignature
from flb.types import Address, Codec, Digest, Domain, Manifest, Receipt, Round, Seconds, Session

pytestmark = pytest.mark.unit

KEY = bytes(31) + b"\x07"
DOMAIN = Domain(31337, Address(b"\x05" * 20))
D = [Digest(bytes([index]) * 32) for index in range(8)]
NODE = identity.address_of(KEY)
MANIFEST = Manifest(NODE, Round(3), D[0], D[1], D[2], D[3], D[4], D[5], 2**40, 7, Codec.BF16)
RECEIPT = Receipt(NODE, Round(3), D[0], D[1], D[3], D[4], D[5], 7, D[6])
SESSION = Session(NODE, D[0], D[1], Seconds(1_800_000_000))


def general(type_string: bytes, values: dict[str, Any]) -> bytes:
    """What eth_account would sign for the same struct."""
    name, fields = type_string.decode().removesuffix(")").split("(")
    types = [dict(zip(("type", "name"), field.split(" "), strict=True)) for field in fields.split(",")]
    domain = {"name": "FLBRun", "version": "1", "chainId": 31337, "verifyingContract": "0x" + "05" * 20}
    message = encode_typed_data(domain, {name: types}, values)
    return bytes(Account.sign_message(message, KEY).signature)


def test_sign__manifest__equals_the_general_encoder() -> None:
    m = MANIFEST
    values = {
        "node": "0x" + m.node.hex(), "round": m.round, "seed": m.seed, "spec": m.spec, "base": m.base,
        "digest": m.digest, "tensorRoot": m.tensor_root, "datasetRoot": m.dataset_root, "size": m.size,
        "examples": m.examples, "codec": int(m.codec),
    }  # fmt: skip
    assert identity.sign(KEY, DOMAIN, identity.manifest_hash(m)) == general(identity.MANIFEST_TYPE, values)


def test_sign__receipt__equals_the_general_encoder() -> None:
    r = RECEIPT
    values = {
        "node": "0x" + r.node.hex(), "round": r.round, "seed": r.seed, "spec": r.spec, "digest": r.digest,
        "tensorRoot": r.tensor_root, "datasetRoot": r.dataset_root, "weight": r.weight, "manifest": r.manifest,
    }  # fmt: skip
    assert identity.sign(KEY, DOMAIN, identity.receipt_hash(r)) == general(identity.RECEIPT_TYPE, values)


def test_sign__session__equals_the_general_encoder() -> None:
    s = SESSION
    values = {"node": "0x" + s.node.hex(), "nonce": s.nonce, "certDigest": s.cert_digest, "expires": s.expires}
    assert identity.sign(KEY, DOMAIN, identity.session_hash(s)) == general(identity.SESSION_TYPE, values)


def test_recover__own_signature__is_the_signer_and_another_domain_is_not() -> None:
    signed = identity.sign(KEY, DOMAIN, identity.manifest_hash(MANIFEST))
    assert identity.recover(DOMAIN, identity.manifest_hash(MANIFEST), signed) == NODE
    for other in (Domain(1, DOMAIN.run), Domain(31337, Address(b"\x06" * 20))):
        assert identity.recover(other, identity.manifest_hash(MANIFEST), signed) != NODE


def test_recover__malformed_or_high_s__is_refused() -> None:
    hashed = identity.session_hash(SESSION)
    signed = identity.sign(KEY, DOMAIN, hashed)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = signed[:32] + (order - int.from_bytes(signed[32:64], "big")).to_bytes(32, "big") + bytes([55 - signed[64]])
    for bad in (b"", signed[:64], signed[:64] + b"\x02", bytes(64) + b"\x1b", high):
        with pytest.raises(BadSignature):
            identity.recover(DOMAIN, hashed, bad)


def test_statement_hash__another_kind__is_another_message() -> None:
    assert identity.statement_hash("a", b"x") != identity.statement_hash("b", b"x")


def test_identity__without_coincurve__gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = identity.manifest_hash(MANIFEST)
    signed = identity.sign(KEY, DOMAIN, hashed)
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "coincurve":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("eth_keys.backends.get_default_backend_class", lambda: "eth_keys.backends.NativeECCBackend")
    monkeypatch.delitem(sys.modules, "coincurve", raising=False)
    try:
        pure = importlib.reload(identity)
        assert pure.coincurve is None
        assert pure.address_of(KEY) == NODE
        assert pure.sign(KEY, DOMAIN, hashed) == signed
        assert pure.recover(DOMAIN, hashed, signed) == NODE
    finally:
        monkeypatch.undo()
        importlib.reload(identity)
