# SPDX-License-Identifier: Apache-2.0
"""The fault tree: whose fault it is decides what happens next.

`PeerFault`: the other side sent something wrong; reject it and go on. `Unavailable`: nobody's fault; wait and try
again. `Fatal`: ours or the user's; stop with the class's exit code. Each is one sentence (docs/architecture.md, Faults).
"""

from typing import ClassVar


class FLBError(Exception):
    """Root of the tree. `str()` is one sentence with the remedy; never a secret, never a traceback.

    `code` is stable and fit for scripts, `exit_code` ends a process, `status` names the gRPC status that carries it.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 70
    status: ClassVar[str] = "INTERNAL"

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what, self.remedy = what, remedy
        super().__init__(f"{what}: {remedy}" if remedy else what)


# --- the other side's fault -------------------------------------------------------------------------------------


class PeerFault(FLBError):
    """The other side sent something wrong. The round lives on."""

    code, exit_code, status = "peer", 40, "INVALID_ARGUMENT"


class UnknownRun(PeerFault):
    """The message is for another run."""

    code, exit_code, status = "unknown-run", 41, "NOT_FOUND"


class WrongRound(PeerFault):
    """The message is for a round that is not open."""

    code, exit_code, status = "wrong-round", 42, "FAILED_PRECONDITION"


class NotInCohort(PeerFault):
    """The node is no member, or was not drawn for this round."""

    code, exit_code, status = "not-in-cohort", 43, "PERMISSION_DENIED"


class BadSignature(PeerFault):
    """The signature is not by the key that the roster names."""

    code, exit_code, status = "bad-signature", 44, "UNAUTHENTICATED"


class TooLarge(PeerFault):
    """More bytes than the run spec allows, in the whole or in the header."""

    code, exit_code, status = "too-large", 45, "RESOURCE_EXHAUSTED"


class AlreadyAdmitted(PeerFault):
    """Another update of this node was admitted in this round."""

    code, exit_code, status = "already-admitted", 46, "ALREADY_EXISTS"


class DigestMismatch(PeerFault):
    """The bytes are not those that were named."""

    code, exit_code, status = "digest-mismatch", 47, "DATA_LOSS"


class Truncated(PeerFault):
    """The stream ended before the size that its manifest states."""

    code, exit_code, status = "truncated", 48, "ABORTED"


class BadContainer(PeerFault):
    """Not a safetensors file of the names, shapes, types and metadata that the run spec asks for."""

    code, exit_code, status = "bad-container", 49, "INVALID_ARGUMENT"


class NotFinite(PeerFault):
    """A value is NaN or infinite."""

    code, exit_code, status = "not-finite", 50, "INVALID_ARGUMENT"


class ValueTooLarge(PeerFault):
    """A value lies beyond the run's value bound."""

    code, exit_code, status = "value-too-large", 51, "OUT_OF_RANGE"


class NormTooLarge(PeerFault):
    """The norm of the update lies beyond the run's norm bound."""

    code, exit_code, status = "norm-too-large", 52, "OUT_OF_RANGE"


class WrongBase(PeerFault):
    """The update starts from another adapter than the round's."""

    code, exit_code, status = "wrong-base", 53, "FAILED_PRECONDITION"


class NotListed(PeerFault):
    """No such blob for this caller; unknown and forbidden are the same answer."""

    code, exit_code, status = "not-listed", 54, "NOT_FOUND"


class BadMessage(PeerFault):
    """The message is not of the form that the protocol gives."""

    code, exit_code, status = "bad-message", 55, "INVALID_ARGUMENT"


class Impostor(PeerFault):
    """The aggregator shows something that the chain does not confirm."""

    code, exit_code, status = "impostor", 56, "UNAUTHENTICATED"


class TooManyTries(PeerFault):
    """The node has used up its tries in this round."""

    code, exit_code, status = "too-many-tries", 57, "RESOURCE_EXHAUSTED"


class NoDataset(PeerFault):
    """The node has registered no dataset that counts in this round."""

    code, exit_code, status = "no-dataset", 58, "FAILED_PRECONDITION"


class ClockSkew(PeerFault):
    """The clocks of the two sides differ by more than a challenge can bear."""

    code, exit_code, status = "clock-skew", 59, "FAILED_PRECONDITION"


# --- nobody's fault ---------------------------------------------------------------------------------------------


class Unavailable(FLBError):
    """Something is away for the moment. Wait and try again."""

    code, exit_code, status = "unavailable", 60, "UNAVAILABLE"


class ChainUnavailable(Unavailable):
    """The RPC endpoint of the chain does not answer."""

    code, exit_code = "chain-unavailable", 61


class AggregatorUnavailable(Unavailable):
    """The aggregator does not answer."""

    code, exit_code = "aggregator-unavailable", 62


class Busy(Unavailable):
    """A limit on calls, streams, bytes or disk is reached for the moment: come back after `retry_seconds`."""

    code, exit_code, status = "busy", 63, "RESOURCE_EXHAUSTED"

    def __init__(self, what: str, remedy: str = "", retry_seconds: float = 1.0) -> None:
        super().__init__(what, remedy)
        self.retry_seconds = retry_seconds


class TrainingFailed(Unavailable):
    """This round's training gave nothing that can be sent; the node waits for the next round."""

    code, exit_code = "training-failed", 64


# --- ours, or the user's ----------------------------------------------------------------------------------------


class Fatal(FLBError):
    """The process cannot go on."""

    code, exit_code, status = "fatal", 70, "INTERNAL"


class ConfigError(Fatal):
    """config.yaml is wrong; the sentence names the line."""

    code, exit_code = "config", 10


class KeystoreError(Fatal):
    """The keystore is missing, or its password is wrong."""

    code, exit_code = "keystore", 11


class DatasetError(Fatal):
    """The dataset is missing, empty or malformed; the sentence names file and line."""

    code, exit_code = "dataset", 12


class ModelMissing(Fatal):
    """The base model, or the package that ships it, is not on this machine."""

    code, exit_code = "model-missing", 13


class WrongBaseModel(Fatal):
    """The base model on this machine is not the one that the run spec names."""

    code, exit_code = "wrong-base-model", 14


class PortTaken(Fatal):
    """Another process listens where this one should."""

    code, exit_code = "port-taken", 15


class LostChain(Fatal):
    """The chain answers, but the run is not on it: another chain, or a local one that was restarted."""

    code, exit_code = "lost-chain", 16


class NotAMember(Fatal):
    """This node was removed, or may not join."""

    code, exit_code = "not-a-member", 17


class MissingTool(Fatal):
    """A package or program that this command needs is not installed."""

    code, exit_code = "missing-tool", 18


class CorruptStore(Fatal):
    """What this process wrote earlier cannot be read back."""

    code, exit_code = "corrupt-store", 19


class Refused(Fatal):
    """The combination of settings is refused by the planner, or the contract refused a transaction."""

    code, exit_code = "refused", 20


class ContractRefused(Refused):
    """The contract refused a transaction: `name` is its custom error, `values` its arguments, `names` their names."""

    code, exit_code = "contract-refused", 23

    def __init__(self, name: str, values: tuple[object, ...] = (), remedy: str = "", names: tuple[str, ...] = ()):
        self.name, self.values, self.names = name, values, names
        texts = ("0x" + value.hex() if isinstance(value, bytes) else str(value) for value in values)
        shown = ", ".join(map("=".join, zip(names, texts, strict=True)) if names else texts)
        super().__init__(f"the contract refused the transaction with {name}({shown})", remedy)


class NotAllowedHere(Fatal):
    """The action would be unsafe: for example plaintext on an address that is not loopback."""

    code, exit_code = "not-allowed-here", 21


class DiskError(Fatal):
    """A file could not be read or written: a full disk, a missing permission, a folder that is a file."""

    code, exit_code = "disk", 24


class ChildFailed(Fatal):
    """The child process of a command ended early; the sentence names it and its log."""

    code, exit_code = "child-failed", 22


class OutOfMemory(Fatal):
    """The model or one training step does not fit; the sentence says what would."""

    code, exit_code = "out-of-memory", 25


def disk_error(error: OSError) -> DiskError:
    """An operating system's error as one of ours."""
    reason = f"{error.strerror or error}{f' {error.filename}' if error.filename else ''}"
    return DiskError(f"a file could not be used ({reason})", "check disk space and permissions")
