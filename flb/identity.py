# SPDX-License-Identifier: Apache-2.0
"""Who said what: EIP-712 struct hashes of the signed types, signing, and recovery of the signer.

Structs are packed by hand (every field is one 32-byte word), which is several times faster than a general encoder.
coincurve does the curve; where it has no wheel, eth-keys does the same work in Python.
Source: https://eips.ethereum.org/EIPS/eip-712, EIP-2 for the low s.
"""

import hashlib
from functools import lru_cache

from flb.errors import BadSignature
from flb.merkle import keccak256
from flb.types import Address, Digest, Domain, Manifest, Receipt, Session

try:
    import coincurve
except ImportError:  # no wheel for this Python
    coincurve = None

DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
MANIFEST_TYPE = (
    b"Manifest(address node,uint32 round,bytes32 seed,bytes32 spec,bytes32 base,bytes32 digest,bytes32 tensorRoot,"
    b"bytes32 datasetRoot,uint64 size,uint64 examples,uint8 codec)"
)
RECEIPT_TYPE = (
    b"Receipt(address node,uint32 round,bytes32 seed,bytes32 spec,bytes32 digest,bytes32 tensorRoot,"
    b"bytes32 datasetRoot,uint64 weight,bytes32 manifest)"
)
SESSION_TYPE = b"Session(address node,bytes32 nonce,bytes32 certDigest,uint40 expires)"
STATEMENT_TYPE = b"Statement(bytes32 kind,bytes32 digest)"
"""What the aggregator signs about messages of its own: keccak256 of the kind's name, keccak256 of the bytes."""

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
SIGNATURE_BYTES = 65
TLS_NAME = "flb-aggregator"
"""The name in every aggregator's own certificate. Its digest on chain says whose it is, so one name does for all."""


def certificate_digest(der: bytes) -> Digest:
    """SHA-256 of a certificate's DER bytes, as `setEndpoint` names it."""
    return Digest(hashlib.sha256(der).digest())


@lru_cache(maxsize=64)
def _type_hash(type_string: bytes) -> Digest:
    return keccak256(type_string)


def hash_struct(type_string: bytes, *fields: bytes | int) -> Digest:
    """Hash of a struct whose fields are all static: integers, addresses and hashes, each one word."""
    words = (field.to_bytes(32, "big") if isinstance(field, int) else field.rjust(32, b"\0") for field in fields)
    return keccak256(_type_hash(type_string) + b"".join(words))


@lru_cache(maxsize=64)
def domain_separator(domain: Domain) -> Digest:
    """EIP-712 domain `FLBRun`, version `1`, of one run."""
    return hash_struct(DOMAIN_TYPE, keccak256(b"FLBRun"), keccak256(b"1"), domain.chain_id, domain.run)


def manifest_hash(manifest: Manifest) -> Digest:
    """Struct hash of a manifest; a receipt names it."""
    m = manifest
    return hash_struct(
        MANIFEST_TYPE, m.node, m.round, m.seed, m.spec, m.base, m.digest, m.tensor_root, m.dataset_root, m.size,
        m.examples, int(m.codec),
    )  # fmt: skip


def receipt_hash(receipt: Receipt) -> Digest:
    """Struct hash of a receipt."""
    r = receipt
    return hash_struct(
        RECEIPT_TYPE, r.node, r.round, r.seed, r.spec, r.digest, r.tensor_root, r.dataset_root, r.weight, r.manifest
    )


def receipt_for(manifest: Manifest, weight: int) -> Receipt:
    """The receipt of an admitted update: what the aggregator signs, and what anybody can check."""
    return Receipt(
        node=manifest.node,
        round=manifest.round,
        seed=manifest.seed,
        spec=manifest.spec,
        digest=manifest.digest,
        tensor_root=manifest.tensor_root,
        dataset_root=manifest.dataset_root,
        weight=weight,
        manifest=manifest_hash(manifest),
    )


def session_hash(session: Session) -> Digest:
    """Struct hash of a session challenge's answer."""
    return hash_struct(SESSION_TYPE, session.node, session.nonce, session.cert_digest, session.expires)


def statement_hash(kind: str, payload: bytes) -> Digest:
    """Struct hash of what the aggregator states: `kind` keeps one message from passing as another."""
    return hash_struct(STATEMENT_TYPE, keccak256(kind.encode()), keccak256(payload))


def signing_digest(domain: Domain, struct_hash: Digest) -> Digest:
    """What is signed: keccak256(0x1901 ‖ domain separator ‖ struct hash)."""
    return keccak256(b"\x19\x01" + domain_separator(domain) + struct_hash)


def address_of(private_key: bytes) -> Address:
    """Address of a private key (32 bytes)."""
    if coincurve is not None:
        public = coincurve.PrivateKey(private_key).public_key.format(compressed=False)[1:]
    else:
        from eth_keys.datatypes import PrivateKey

        public = PrivateKey(private_key).public_key.to_bytes()
    return Address(keccak256(public)[12:])


def sign(private_key: bytes, domain: Domain, struct_hash: Digest) -> bytes:
    """65 bytes r ‖ s ‖ v with v 27 or 28; the nonce is deterministic (RFC 6979), so a repeat gives the same bytes."""
    digest = signing_digest(domain, struct_hash)
    if coincurve is not None:
        raw: bytes = coincurve.PrivateKey(private_key).sign_recoverable(digest, hasher=None)
        return raw[:64] + bytes([raw[64] + 27])
    from eth_keys.datatypes import PrivateKey

    raw = PrivateKey(private_key).sign_msg_hash(digest).to_bytes()
    return raw[:64] + bytes([raw[64] + 27])


def recover(domain: Domain, struct_hash: Digest, signature: bytes) -> Address:
    """The address that signed. Raises BadSignature for bytes that are no signature, or one with a high s."""
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28):
        raise BadSignature("the signature is malformed", "sign with EIP-712, 65 bytes, v 27 or 28")
    if int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        raise BadSignature("the signature has a high s", "use the low s of EIP-2")
    raw = signature[:64] + bytes([signature[64] - 27])
    digest = signing_digest(domain, struct_hash)
    try:
        if coincurve is not None:
            key = coincurve.PublicKey.from_signature_and_message(raw, digest, hasher=None)
            return Address(keccak256(key.format(compressed=False)[1:])[12:])
        from eth_keys.datatypes import Signature

        return Address(Signature(raw).recover_public_key_from_msg_hash(digest).to_canonical_address())
    except Exception as error:  # both libraries raise bare Exception or ValueError for bytes that are no point
        raise BadSignature("the signature belongs to no key", "sign with the node's key") from error
