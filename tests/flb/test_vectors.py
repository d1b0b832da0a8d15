# SPDX-License-Identifier: Apache-2.0
"""proto/vectors against the program: every output is recomputed from the inputs in the file."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785

from flb import identity, merkle, records
from flb import spec as specs
from flb.admission import check_header, layout_of, update_metadata
from flb.codec import CODINGS, dither
from flb.errors import Truncated
from flb.roster import roster_root
from flb.store import BlobStore
from flb.types import (
    ZERO_DIGEST,
    Address,
    Codec,
    Digest,
    Domain,
    Manifest,
    Member,
    Receipt,
    Round,
    Seconds,
    Session,
    Step,
    TensorSpec,
)
from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import chunks, container, messages
from flb_aggregator.intake import Spool, Upload
from tests.sim import reader

pytestmark = pytest.mark.unit


FOLDER = Path(__file__).resolve().parents[2] / "proto" / "vectors"
TOPICS = {path.stem for path in FOLDER.glob("*.json")}
Case = dict[str, Any]


def raw(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def cases(topic: str, field: str = "") -> list[Case]:
    every: list[Case] = json.loads((FOLDER / f"{topic}.json").read_text())["cases"]
    chosen = [case for case in every if not field or field in case]
    assert chosen, f"{topic}.json has no case with {field}"
    return chosen


def values_of(value: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(raw(value), dtype="<f4")


def test_readme__every_file__has_its_paragraph() -> None:
    text = (FOLDER / "README.md").read_text()
    assert set(re.findall(r"^\*\*`(\w+)\.json`\*\*", text, re.MULTILINE)) == TOPICS
    assert all(json.loads((FOLDER / f"{topic}.json").read_text())["description"] for topic in TOPICS)


@pytest.mark.parametrize("case", cases("canonical_json"), ids=lambda case: case["name"])
def test_canonical_json__any_order__gives_the_one_form(case: Case) -> None:
    made = rfc8785.dumps(json.loads(case["json"]))
    assert (made, hashlib.sha256(made).digest()) == (raw(case["canonical"]), raw(case["sha256"]))
    if case["name"] == "run spec":
        assert specs.digest_of(specs.decode(made).encode()) == raw(case["sha256"])


# --- values: these two know the codecs' interface


@pytest.mark.parametrize("case", cases("codecs"), ids=lambda case: case["codec"])
def test_codec__values__become_the_entries_and_decode(case: Case) -> None:
    codec, entries = Codec[case["codec"].upper()], case["entries"]
    coding, values = CODINGS[codec], values_of(case["values"])
    assert (int(codec), [part.suffix for part in coding.parts]) == (case["number"], [e["suffix"] for e in entries])
    assert [part.dtype for part in coding.parts] == [entry["dtype"] for entry in entries]
    key = dither.key_of(Address(raw(case["run"])), Step(case["step"]), Address(raw(case["node"])))
    assert key == raw(case["dither"])
    held = [raw(entry["data"]) for entry in entries]
    assert [bytes(data) for data in coding.encode(values, dither.stream(key))] == held
    found = coding.decode([memoryview(data) for data in held], np.empty(values.size, np.float32))
    assert found.astype("<f4").tobytes() == raw(case["decoded"])


@pytest.mark.parametrize("case", cases("update"))
def test_update__spec_and_values__give_the_blob(case: Case) -> None:
    spec, node, base = specs.decode(case["spec"].encode()), Address(raw(case["node"])), Digest(raw(case["base"]))
    layout = layout_of(spec, Step(case["step"]))
    assert [tensor.name for tensor in layout.tensors] == sorted(case["values"])
    draw = dither.stream(dither.key_of(Address(raw(case["run"])), Step(case["step"]), node))
    blob = container.header_of(layout.entries, update_metadata(raw(case["salt"]), node, base))
    for tensor in layout.tensors:
        parts = CODINGS[spec.wire_codec].encode(values_of(case["values"][tensor.name]), draw)
        blob += b"".join(bytes(part) for part in parts)
    assert (blob, len(blob), str(layout.size)) == (raw(case["blob"]), layout.size, case["size"])
    digest = Digest(hashlib.sha256(blob).digest())
    assert digest == raw(case["sha256"])
    manifest = Manifest(node, Round(1), ZERO_DIGEST, ZERO_DIGEST, base, digest, ZERO_DIGEST, ZERO_DIGEST, len(blob), 1,
                        spec.wire_codec)  # fmt: skip
    check_header(reader(blob), manifest, layout)


def test_codecs__in_the_file__are_all_of_the_program() -> None:
    assert {case["codec"] for case in cases("codecs")} == {codec.name.lower() for codec in Codec}


# --- everything else


@pytest.mark.parametrize("case", cases("container"))
def test_container__entries__give_the_file(case: Case) -> None:
    tensors = [TensorSpec(entry["name"], tuple(entry["shape"])) for entry in case["entries"]]
    (dtype,) = {entry["dtype"] for entry in case["entries"]}
    header = container.encode_header(tensors, dtype, case["metadata"])
    blob = raw(case["blob"])
    assert (header, hashlib.sha256(blob).digest()) == (raw(case["header"]), raw(case["sha256"]))
    assert blob[: len(header)] == header
    parsed = container.decode_header(header[container.LENGTH_BYTES :])
    assert len(blob) == len(header) + sum(len(raw(entry["data"])) for entry in case["entries"])
    for entry in case["entries"]:
        found = next(item for item in parsed.entries if item.name == entry["name"])
        assert blob[len(header) + found.start : len(header) + found.end] == raw(entry["data"])


READ = {"address": lambda text: Address(raw(text)), "bytes32": lambda text: Digest(raw(text))}
HASHES = {
    "Manifest": (Manifest, identity.manifest_hash),
    "Receipt": (Receipt, identity.receipt_hash),
    "Session": (Session, identity.session_hash),
}


@pytest.mark.parametrize("case", cases("eip712"), ids=lambda case: case["type"].partition("(")[0])
def test_eip712__message__gives_hash_digest_and_signature(case: Case) -> None:
    name, fields = case["type"].removesuffix(")").split("(")
    domain = Domain(case["domain"]["chainId"], Address(raw(case["domain"]["verifyingContract"])))
    assert identity.domain_separator(domain) == raw(case["separator"])
    if name == "Statement":
        hashed = identity.statement_hash(case["kind"], raw(case["payload"]))
        assert merkle.keccak256(case["kind"].encode()) == raw(case["message"]["kind"])
    else:
        kinds = {field.split(" ")[1]: field.split(" ")[0] for field in fields.split(",")}
        read = {field: READ.get(kinds[field], int)(value) for field, value in case["message"].items()}
        made, hash_of = HASHES[name]
        snake = {re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), field): item for field, item in read.items()}
        hashed = hash_of(made(**snake | ({"codec": Codec(snake["codec"])} if "codec" in snake else {})))  # type: ignore[operator]
    assert hashed == raw(case["struct_hash"])
    assert identity.signing_digest(domain, hashed) == raw(case["digest"])
    assert identity.sign(raw(case["key"]), domain, hashed) == raw(case["signature"])
    assert identity.recover(domain, hashed, raw(case["signature"])) == raw(case["signer"])


@pytest.mark.parametrize("case", cases("merkle", "paths"), ids=lambda case: str(len(case["leaves"])))
def test_merkle__plain_tree__has_root_and_paths(case: Case) -> None:
    leaves = [Digest(raw(leaf)) for leaf in case["leaves"]]
    assert merkle.root(leaves) == raw(case["root"])
    for index, siblings in enumerate(case["paths"]):
        path = [Digest(raw(item)) for item in siblings]
        assert merkle.path(leaves, index) == path
        assert merkle.root_of_path(leaves[index], index, path) == raw(case["root"])


@pytest.mark.parametrize("case", cases("merkle", "updates"), ids=lambda case: str(len(case["updates"])))
def test_merkle__updates__have_leaves_and_root_with_sentinels(case: Case) -> None:
    leaves = [
        merkle.update_leaf(Address(raw(u["node"])), int(u["weight"]), Digest(raw(u["digest"])),
                           Digest(raw(u["tensor_root"])), Digest(raw(u["dataset_root"])))
        for u in case["updates"]
    ]  # fmt: skip
    assert leaves == [raw(leaf) for leaf in case["leaves"]]
    assert merkle.updates_root(leaves) == raw(case["root"])


def test_merkle__dataset__has_leaves_and_commitment() -> None:
    (case,) = cases("merkle", "records")
    leaves = [merkle.salted_record(raw(r["salt"]), rfc8785.dumps(r["messages"])) for r in case["records"]]
    assert leaves == [raw(leaf) for leaf in case["leaves"]]
    assert merkle.dataset_root(Address(raw(case["node"])), leaves) == raw(case["root"])


def test_merkle__roster__has_its_root() -> None:
    (case,) = cases("merkle", "members")
    members = [
        Member(*(Address(raw(m[name])) for name in ("node", "key", "payee")), Digest(raw(m["dataset_root"])), int(m["records"]))
        for m in case["members"]
    ]  # fmt: skip
    assert roster_root(tuple(members)) == raw(case["root"])


def fill(message: Any, fields: Case) -> Any:
    """Set the fields of a protobuf message from JSON."""
    for name, value in fields.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if isinstance(value, dict):
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        elif isinstance(value, list):
            kind = field.message_type and getattr(pb, field.message_type.name)
            getattr(message, name).extend(fill(kind(), item) if kind else raw(item) for item in value)
        elif field.enum_type is not None:
            setattr(message, name, field.enum_type.values_by_name[value].number)
        else:
            setattr(message, name, raw(value) if field.type == field.TYPE_BYTES else _number(field, value))
    return message


def _number(field: Any, value: Any) -> Any:
    return int(value) if isinstance(value, str) and field.type != field.TYPE_STRING else value


@pytest.mark.parametrize("case", cases("messages"), ids=lambda case: case["message"])
def test_messages__fields__serialize_and_parse(case: Case) -> None:
    kind = getattr(pb, case["message"])
    made = fill(kind(), case["fields"])
    assert made.SerializeToString(deterministic=True) == raw(case["serialized"])
    assert kind.FromString(raw(case["serialized"])) == made


def test_messages__of_the_file__are_all_of_the_service_and_are_legal() -> None:
    methods = pb.DESCRIPTOR.services_by_name["AggregatorService"].methods
    wanted = {kind.name for method in methods for kind in (method.input_type, method.output_type)} | {"RoundState"}
    made = [fill(getattr(pb, case["message"])(), case["fields"]) for case in cases("messages")]
    assert {message.DESCRIPTOR.name for message in made} == wanted
    header = next(m.header for m in made if isinstance(m, pb.UploadUpdateRequest) and m.HasField("header"))
    assert messages.manifest_to_proto(*messages.manifest_from_proto(header.manifest)) == header.manifest
    receipt = next(m.receipt for m in made if isinstance(m, pb.UploadUpdateResponse))
    assert messages.receipt_to_proto(*messages.receipt_from_proto(receipt)) == receipt


def test_record__fields__give_the_blob_and_true_signatures() -> None:
    (case,) = cases("record", "record")
    blob = rfc8785.dumps(case["record"])
    assert (blob, hashlib.sha256(blob).digest()) == (raw(case["blob"]), raw(case["sha256"]))
    record = records.decode(blob)
    assert records.encode(record) == blob
    assert merkle.updates_root(records.update_leaves(record.closing)) == record.updates_root
    for item in record.closing.admitted:
        assert identity.recover(record.domain, identity.manifest_hash(item.manifest), item.signature) == item.node
    assert record.weight_sum == sum(item.weight for item in record.closing.admitted)


def test_record_hash__rolled_and_voided() -> None:
    (record,), (rolled,), (voided,) = cases("record", "record"), cases("record", "rolled"), cases("record", "voided")
    blob = raw(record["blob"])
    given = rolled["rolled"]
    roll = records.roll_of(records.decode(blob), blob)
    for name in records.Roll.__slots__:
        value = getattr(roll, name)
        assert (raw(given[name]) if isinstance(value, bytes) else int(given[name])) == value, name
    chained = (Digest(raw(given["previous"])), Digest(raw(given["seed"])), Seconds(given["deadline"]))
    assert records.roll_hash(roll, *chained) == raw(rolled["hash"])
    assert records.void_hash(Round(int(voided["voided"]["round"])), *chained) == raw(voided["hash"])


@pytest.mark.parametrize("case", cases("upload", "chunks"), ids=lambda case: f"{case['size']} from {case['offset']}")
def test_upload__chunks__lie_where_the_file_says(case: Case) -> None:
    asked = []
    list(chunks.send(lambda at, count: asked.append([at, count]) or b"", int(case["size"]), int(case["offset"])))  # type: ignore[func-returns-value]
    assert asked == case["chunks"]


@pytest.mark.parametrize("case", cases("upload", "query"), ids=lambda case: case["resume_from"])
def test_upload__resume__the_offset_is_taken_and_others_are_refused(case: Case, tmp_path: Path) -> None:
    """The aggregator's own spool, holding what the query says."""
    node, seed = Address(bytes(20)), Digest(bytes(32))

    def manifest(digest: str) -> Manifest:
        return Manifest(node, Round(1), seed, seed, seed, Digest(raw(digest)), seed, seed, 1000, 1, Codec.F32)

    held = int(case["query"]["committed"])
    spool = Spool(tmp_path, BlobStore(tmp_path / "blobs"))
    for offset in (*case["refused"], case["resume_from"], "0"):
        for old in tmp_path.glob("1-*"):
            old.unlink()
        if held:
            before = Upload(spool, manifest(case["query"]["digest"]), 0)
            before.write(bytes(held))
            before.close()
        assert spool.committed((Round(1), seed), node) == (held, raw(case["query"]["digest"]))
        if offset in case["refused"]:
            with pytest.raises(Truncated):
                Upload(spool, manifest(case["digest"]), int(offset))
        else:
            upload = Upload(spool, manifest(case["digest"]), int(offset))
            assert upload.receiver.held == int(offset)
            upload.close()
