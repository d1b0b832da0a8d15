# SPDX-License-Identifier: Apache-2.0
"""Write proto/vectors: inputs and outputs of every encoding, for clients in other languages; `--check` only compares.

    python -m tools.make_vectors [--check]

Bytes are hex with 0x. 64-bit integers are decimal strings, since many readers of JSON round beyond 2^53. Keys are
keccak256 of a word, as in the example of EIP-712, so nobody takes them for secrets.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import rfc8785

from flb import identity, membership, merkle, payouts, records
from flb.membership import Kind, Message, word_of
from flb.payouts import Standing
from flb.roster import roster_root
from flb.types import (
    ZERO_DIGEST,
    Address,
    Admitted,
    Block,
    Codec,
    Digest,
    Domain,
    Manifest,
    Member,
    Opening,
    Receipt,
    Round,
    Seconds,
    Session,
    Step,
    TensorSpec,
)
from flb.wire import chunks, container
from tools import vector_cohort, vector_messages, vector_standard_tree, vector_values
from tools.vector_values import COW, Case, digest, small_spec, text

TARGET = Path(__file__).resolve().parent.parent / "proto" / "vectors"
DOMAIN = Domain(31337, Address(b"\x0f" * 20))
PAYOUT = 10**18
"""What a round pays in these cases."""
DOG, AGGREGATOR = (bytes(merkle.keccak256(word)) for word in (b"dog", b"aggregator"))


def canonical_json() -> list[Case]:
    """JSON in any order to the one form, and its SHA-256."""
    spec = json.dumps(json.loads(small_spec("alternate", Codec.BF16).encode()), indent=1)
    named = {
        "run spec": spec,
        "messages of a dataset's record": '[{"role": "user", "content": "caf\\u00e9?\\n"}, {"content": "\\"yes\\"", "role": "assistant"}]',
        "numbers": "[1.0, -0.0, 0.00001, 1e-7, 1e21, 1e20, 0.1, 4.5, 9007199254740991, 2e-4, 123456.789e3]",
        "names in order of UTF-16 units": '{"\\ufb33": 1, "\\ud83d\\ude00": 2, "b": {"z": [], "a": {}}, "a": null, "": true}',
        "characters": '"\\u0000\\u001f\\b\\f\\n\\r\\t\\u007f\\u2028\\/\\\\"',
    }
    cases = []
    for name, value in named.items():
        out = rfc8785.dumps(json.loads(value))
        cases.append(
            {"name": name, "json": value, "canonical": text(out), "sha256": text(hashlib.sha256(out).digest())}
        )
    return cases


def manifest(key: bytes, codec: Codec = Codec.BF16, size: int = 2**40, examples: int = 7) -> Manifest:
    """A manifest of the node that a key belongs to."""
    node = identity.address_of(key)
    return Manifest(node, Round(3), digest("seed"), digest("spec"), digest("base"), digest(f"update {node.hex()}"),
                    ZERO_DIGEST, digest("dataset"), size, examples, codec)  # fmt: skip


def signed_case(type_string: bytes, message: Case, hashed: Digest, key: bytes = COW) -> Case:
    """One signed struct."""
    return {"type": type_string.decode(), "message": message, "key": text(key), "signer": text(identity.address_of(key)),
            "struct_hash": text(hashed), "digest": text(identity.signing_digest(DOMAIN, hashed)),
            "signature": text(identity.sign(key, DOMAIN, hashed))}  # fmt: skip


def message_of(value: Manifest | Receipt | Session) -> Case:
    """Fields under the names of EIP-712."""
    out = {}
    for name in value.__slots__:
        field, words = getattr(value, name), name.split("_")
        named = words[0] + "".join(word.title() for word in words[1:])
        wide = name in ("size", "examples", "weight")
        out[named] = text(field) if isinstance(field, bytes) else str(int(field)) if wide else int(field)
    return out


def eip712() -> list[Case]:
    """Every signed type."""
    session = Session(identity.address_of(COW), digest("nonce"), digest("certificate"), Seconds(1_800_000_000))
    manifests = [*(manifest(COW, codec) for codec in Codec), manifest(COW, Codec.F32, 2**64 - 1, 2**64 - 1)]
    cases = [signed_case(identity.MANIFEST_TYPE, message_of(one), identity.manifest_hash(one)) for one in manifests]
    for weight in (7, 2**64 - 1):
        receipt = identity.receipt_for(manifest(COW), weight)
        hashed = identity.receipt_hash(receipt)
        cases.append(signed_case(identity.RECEIPT_TYPE, message_of(receipt), hashed, AGGREGATOR))
    cases.append(signed_case(identity.SESSION_TYPE, message_of(session), identity.session_hash(session)))
    for kind in ("flb.v1.GetRun", "flb.v1.RoundState"):
        payload = kind.encode() + b" payload"
        message = {"kind": text(merkle.keccak256(kind.encode())), "digest": text(merkle.keccak256(payload))}
        case = signed_case(identity.STATEMENT_TYPE, message, identity.statement_hash(kind, payload), AGGREGATOR)
        cases.append({**case, "kind": kind, "payload": text(payload)})
    return in_domain(cases)


def in_domain(cases: list[Case]) -> list[Case]:
    """Signed cases with the domain that they are signed in."""
    domain = {"name": "FLBRun", "version": "1", "chainId": DOMAIN.chain_id, "verifyingContract": text(DOMAIN.run)}
    return [{"domain": domain, "separator": text(identity.domain_separator(DOMAIN)), **case} for case in cases]


def memberships() -> list[Case]:
    """Every membership message, by the node or the admitter, with its compact signature."""
    node, other, end = identity.address_of(COW), identity.address_of(DOG), Seconds(1_800_000_000)
    root = digest("dataset")
    named: list[tuple[bytes, Message, Case]] = [
        (membership.JOIN_TYPE, Message(Kind.JOIN, node, 3, end, word_of(other)), {"payee": text(other)}),
        (membership.LEAVE_TYPE, Message(Kind.LEAVE, node, 2**32 - 1, Seconds(2**40 - 1)), {}),
        (membership.ROTATE_KEY_TYPE, Message(Kind.ROTATE_KEY, node, 3, end, word_of(other)), {"key": text(other)}),
        (membership.REGISTER_DATASET_TYPE, Message(Kind.REGISTER_DATASET, node, 3, end, root, 2**64 - 1),
         {"root": text(root), "records": str(2**64 - 1)}),
        (membership.REVOKE_DATASET_TYPE, Message(Kind.REVOKE_DATASET, node, 3, end, root), {"root": text(root)}),
    ]  # fmt: skip
    cases = []
    for kind, m, more in named:
        values = {"node": text(m.node), **more, "seq": m.seq, "deadline": m.deadline}
        case = signed_case(kind, values, membership.message_hash(m))
        cases.append({**case, "compact": text(membership.sign_message(COW, DOMAIN, m).compact)})
    made = membership.sign_invite(DOG, DOMAIN, node, 2, end)
    values = {"node": text(node), "removals": 2, "deadline": end}
    case = signed_case(membership.INVITE_TYPE, values, membership.invite_hash(node, 2, end), DOG)
    cases.append({**case, "compact": text(made.compact), "text": membership.invite_to_text(made)})
    return in_domain(cases)


def containers() -> list[Case]:
    """Entries and metadata to a safetensors file."""
    tensors = (
        TensorSpec("b", (3,)),
        TensorSpec("a.weight", (2, 1)),
        TensorSpec("\ufb33", (1,)),
        TensorSpec("😀", (0,)),
    )
    cases = []
    for dtype, metadata in (
        ("F32", {"format": "pt"}),
        ("BF16", {}),
        ("I8", {"salt": "\u00e9\n", "base": "0x", "node": ""}),
    ):
        header = container.encode_header(tensors, dtype, metadata)
        entries, blob = [], header
        for tensor in sorted(tensors, key=lambda tensor: tensor.name.encode()):
            data = bytes(range(1, 1 + tensor.size * container.ITEM_SIZES[dtype]))
            blob += data
            entries.append({"name": tensor.name, "dtype": dtype, "shape": list(tensor.shape), "data": text(data)})
        cases.append({"entries": sorted(entries, key=lambda entry: len(entry["name"])), "metadata": metadata,
                      "header": text(header), "blob": text(blob), "sha256": text(hashlib.sha256(blob).digest())})  # fmt: skip
    return cases


def trees() -> list[Case]:
    """The generic tree, and the three trees of the protocol."""
    leaves = [merkle.leaf(bytes([index])) for index in range(5)]
    cases: list[Case] = []
    for count in range(6):
        some = leaves[:count]
        cases.append({"tree": "plain", "leaves": [text(leaf) for leaf in some], "root": text(merkle.root(some)),
                      "paths": [[text(hashed) for hashed in merkle.path(some, index)] for index in range(count)]})  # fmt: skip
    nodes = sorted(identity.address_of(key) for key in (COW, DOG))
    for present in ([], nodes):
        fields = [(node, 2**40 + 1, digest("update"), ZERO_DIGEST, digest("dataset")) for node in present]
        hashed = [merkle.update_leaf(*one) for one in fields]
        names = ("node", "weight", "digest", "tensor_root", "dataset_root")
        given = [
            {name: str(x) if isinstance(x, int) else text(x) for name, x in zip(names, one, strict=True)}
            for one in fields
        ]
        cases.append({"tree": "updates", "updates": given, "leaves": [text(one) for one in hashed],
                      "root": text(merkle.updates_root(hashed))})  # fmt: skip
    data = [[{"role": "user", "content": f"{index}?"}, {"role": "assistant", "content": "é"}] for index in range(3)]
    salts = [digest(f"salt {index}") for index in range(3)]
    hashed = [merkle.salted_record(salt, rfc8785.dumps(one)) for salt, one in zip(salts, data, strict=True)]
    cases.append({"tree": "dataset", "node": text(nodes[0]), "leaves": [text(one) for one in hashed],
                  "records": [{"salt": text(salt), "messages": one} for salt, one in zip(salts, data, strict=True)],
                  "root": text(merkle.dataset_root(nodes[0], hashed))})  # fmt: skip
    roster = tuple(Member(node, node, Address(b"\x07" * 20), digest("dataset"), 100) for node in nodes)
    given = [{"node": text(m.node), "key": text(m.key), "payee": text(m.payee), "dataset_root": text(m.dataset_root),
              "records": str(m.records)} for m in roster]  # fmt: skip
    return [*cases, {"tree": "roster", "members": given, "root": text(roster_root(roster))}]


def record() -> list[Case]:
    """A sealed round: its record, what is sent to the contract, and the contract's hash; then a void one's hash."""
    admitted = []
    for key, weight in ((COW, 7), (DOG, 5)):
        one = manifest(key)
        receipt = identity.sign(AGGREGATOR, DOMAIN, identity.receipt_hash(identity.receipt_for(one, weight)))
        admitted.append(Admitted(one, identity.sign(key, DOMAIN, identity.manifest_hash(one)), weight, receipt))
    admitted.sort(key=lambda item: item.node)
    late, missing = Address(b"\x01" * 20), Address(b"\x02" * 20)
    roster = tuple(Member(a.node, a.node, a.node, a.manifest.dataset_root, 100) for a in admitted)
    opening = Opening(Round(3), Step(2), digest("seed"), Seconds(1_800_000_000), digest("base"), digest("hash 2"),
                      Block(17, digest("block")), roster, roster)  # fmt: skip
    closing = records.Closing(tuple(admitted), (late,), (missing,))
    before = (Standing(late, 3, 3, 2**64), Standing(admitted[0].node, 0, 2**60, 2**70))
    standings = payouts.after(before, {item.node: item.weight for item in admitted}, PAYOUT)
    made = records.make(DOMAIN, digest("spec"), opening, digest("record 1"), closing, digest("adapter"),
                        digest("remainder"), digest("encoded step"), standings=standings, round_payout=PAYOUT)  # fmt: skip
    blob = records.encode(made)
    roll, seed, deadline = records.roll_of(made, blob), digest("next seed"), Seconds(1_800_000_100)
    sealed = {
        name: text(x) if isinstance(x, bytes) else str(x) for name in roll.__slots__ for x in [getattr(roll, name)]
    }
    chained = {"previous": text(opening.previous), "seed": text(seed), "deadline": deadline}
    return [
        {"record": json.loads(blob), "blob": text(blob), "sha256": text(hashlib.sha256(blob).digest())},
        {"rolled": {**sealed, **chained}, "hash": text(records.roll_hash(roll, opening.previous, seed, deadline))},
        {
            "voided": {"round": "3", **chained},
            "hash": text(records.void_hash(Round(3), opening.previous, seed, deadline)),
        },
    ]


def upload() -> list[Case]:
    """Where chunks lie, and from where an upload goes on."""
    largest, cases = chunks.CHUNK, []
    for size, offset in ((1, 0), (largest, 0), (largest + 1, 0), (3 * largest, largest + 7), (100, 100)):
        sizes = [len(part) for part in chunks.send(lambda at, count: bytes(count), size, offset)]
        cuts = [[offset + sum(sizes[:index]), length] for index, length in enumerate(sizes)]
        cases.append({"size": str(size), "offset": str(offset), "chunks": cuts})
    own, other = text(digest("update")), text(digest("another update"))
    for held, belongs, refused in ((0, "0x", [1]), (100, own, [1, 50, 101]), (100, other, [1, 100])):
        cases.append({"digest": own, "query": {"committed": str(held), "digest": belongs},
                      "resume_from": str(held if belongs == own else 0), "refused": [str(at) for at in refused]})  # fmt: skip
    return cases


TOPICS: dict[str, tuple[str, Callable[[], list[Case]]]] = {
    "canonical_json": ("JSON to its canonical form (RFC 8785), and SHA-256 of that.", canonical_json),
    "codecs": (
        "float32 values (little endian) to the entries of each codec, and what they decode to.",
        vector_values.codecs,
    ),
    "cohort": ("A roster, a seed and the spec's rule to the nodes that are drawn.", vector_cohort.cases),
    "container": ("Entries and metadata to a safetensors file in its one legal form.", containers),
    "eip712": ("Signed types: struct hash, digest and deterministic signature (RFC 6979, low s).", eip712),
    "membership": ("Membership messages and an invite: hashes, signatures, compact signatures, text.", memberships),
    "merkle": ("Roots of trees: plain leaves, updates with sentinels, a dataset's commitment, a roster.", trees),
    "messages": ("Fields to serialized protobuf, every request and response once.", vector_messages.cases),
    "record": ("A sealed round's record, and the record hashes of a sealed and a void round.", record),
    "standard_tree": ("Nodes and values to trees as @openzeppelin/merkle-tree makes them.", vector_standard_tree.cases),
    "update": ("A run spec, step and values to the update blob.", vector_values.update),
    "upload": ("Chunks of an upload, and where one goes on after a break.", upload),
}


def main() -> int:
    """Write the files, or compare them."""
    stale = []
    for name, (description, make) in TOPICS.items():
        path = TARGET / f"{name}.json"
        out = json.dumps({"description": description, "cases": make()}, indent=1, ensure_ascii=True) + "\n"
        if "--check" not in sys.argv[1:]:
            TARGET.mkdir(parents=True, exist_ok=True)
            path.write_text(out)
        elif not path.exists() or path.read_text() != out:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)} in proto/vectors differ from the program: run `make gen`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
