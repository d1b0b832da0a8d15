# SPDX-License-Identifier: Apache-2.0
"""The shipped ABI has what the program calls by name, with the selectors and topics that the standard gives."""

import dataclasses

import pytest
from eth_abi.abi import decode, encode

from flb import events
from flb.chain import abi
from flb.chain.deploy import Settings
from flb.chain.events import CLASSES
from flb.chain.refusal import REMEDIES, error_name, refusal
from flb.chain.sender import calldata
from flb.merkle import keccak256

pytestmark = pytest.mark.unit

RUN = abi.load("FLBRun")
FACTORY = abi.load("FLBFactory")


def test_load__run__has_every_event_that_is_decoded_and_no_other_of_its_own() -> None:
    names = {item.name for item in RUN.events.values()}
    inherited = {"EIP712DomainChanged", "Initialized", "OwnershipTransferStarted", "OwnershipTransferred"}
    assert names - inherited == set(CLASSES)


def test_load__run__every_event_has_as_many_parameters_as_its_class_has_fields() -> None:
    for item in RUN.events.values():
        if item.name in CLASSES:
            assert len(item.inputs) == len(item.indexed) == len(dataclasses.fields(CLASSES[item.name])) - 1


def test_load__tuple_parameter__is_written_out_in_the_signature() -> None:
    roll = RUN.functions["roll"]
    assert roll.inputs == ("uint32", "(bytes32,bytes32,bytes32,bytes32,bytes32,uint32,uint64)")
    assert roll.signature == keccak256(f"roll({','.join(roll.inputs)})".encode())
    assert FACTORY.functions["createRun"].inputs[0].count(",") == len(dataclasses.fields(Settings)) - 1


def test_load__standard_functions__have_the_known_selectors() -> None:
    # https://www.4byte.directory knows these two: owner() of Ownable and transferOwnership(address)
    assert RUN.functions["owner"].signature[:4].hex() == "8da5cb5b"
    assert RUN.functions["transferOwnership"].signature[:4].hex() == "f2fde38b"


def test_load__outputs__decode_what_a_view_returns() -> None:
    item = RUN.functions["head"]
    assert decode(item.outputs, encode(item.outputs, (1, 2, 3, True))) == (1, 2, 3, True)


def test_load__bytecode__is_there_for_what_is_deployed() -> None:
    assert len(FACTORY.bytecode) > 10_000


def test_load__unknown_name__is_a_mistake_of_the_program() -> None:
    with pytest.raises(FileNotFoundError):
        abi.load("Nothing")


def test_calldata__call_with_arguments__is_selector_and_words() -> None:
    data = calldata("FLBRun", "registerDataset", b"\x0a" * 20, b"\x07" * 32, 5)
    head = keccak256(b"registerDataset(address,bytes32,uint64)")[:4] + bytes(12) + b"\x0a" * 20
    assert data == head + b"\x07" * 32 + (5).to_bytes(32, "big")


SAMPLES = {"address": "0x" + "0a" * 20, "uint32": 7, "uint40": 9, "uint256": 10**18, "string": "spec"}


def test_refusal__every_error_of_every_contract__is_decoded_with_the_names_of_its_arguments() -> None:
    known = {name for contract in abi.CONTRACTS for name in (e.name for e in abi.load(contract).errors.values())}
    assert {item.name for item in abi.errors().values()} == known | {"Error", "Panic"}
    assert {
        "FLBReplayed",
        "OwnableUnauthorizedAccount",
        "ERC20InsufficientBalance",
        "SafeERC20FailedOperation",
    } <= known
    for item in abi.errors().values():
        values = tuple(SAMPLES[kind] for kind in item.inputs)
        refused = refusal(item.signature[:4] + encode(item.inputs, values))
        assert (refused.name, refused.values) == (item.name, values)
        shown = ", ".join(f"{name}={value}" for name, value in zip(item.names, values, strict=True))
        assert f"refused the transaction with {item.name}({shown})" in str(refused)


def test_refusal__replayed_message__says_both_numbers_and_what_to_do() -> None:
    data = keccak256(b"FLBReplayed(uint32,uint32)")[:4] + encode(["uint32", "uint32"], [3, 5])
    expected = "the contract refused the transaction with FLBReplayed(seq=3, stored=5): sign again with a higher seq"
    assert str(refusal(data)) == expected


def test_refusal__standard_errors__have_the_known_selectors() -> None:
    # https://docs.soliditylang.org names these two
    assert abi.errors()[bytes.fromhex("08c379a0")].name == "Error"
    assert abi.errors()[bytes.fromhex("4e487b71")].name == "Panic"


def test_remedies__each__is_of_an_error_that_there_is() -> None:
    assert set(REMEDIES) <= {item.name for item in abi.errors().values()}


def test_error_name__selector_of_a_skipped_message__is_its_name_or_hex() -> None:
    assert error_name(keccak256(b"FLBExpired(uint40)")[:4]) == "FLBExpired"
    assert error_name(b"\xde\xad\xbe\xef") == "0xdeadbeef"


@pytest.mark.parametrize("tail", [b"", b"\x01", bytes(31)], ids=["none", "one byte", "a byte short"])
def test_refusal__cut_or_foreign_data__is_a_plain_revert(tail: bytes) -> None:
    for selector in (keccak256(b"FLBTooEarly(uint40)")[:4], b"\xde\xad\xbe\xef"):
        refused = refusal(selector + tail)
        assert refused.name == "revert"
        assert refused.values == (selector + tail,)


def test_classes__every_event_of_the_program__can_be_decoded() -> None:
    assert set(CLASSES.values()) == set(events.ChainEvent.__args__)
