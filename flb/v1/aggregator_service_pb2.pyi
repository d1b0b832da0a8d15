from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RoundPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUND_PHASE_UNSPECIFIED: _ClassVar[RoundPhase]
    ROUND_PHASE_WAITING: _ClassVar[RoundPhase]
    ROUND_PHASE_INTAKE: _ClassVar[RoundPhase]
    ROUND_PHASE_COMBINING: _ClassVar[RoundPhase]
    ROUND_PHASE_ROLLING: _ClassVar[RoundPhase]
    ROUND_PHASE_FINISHED: _ClassVar[RoundPhase]
    ROUND_PHASE_OPENED: _ClassVar[RoundPhase]

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_F32: _ClassVar[Codec]
    CODEC_BF16: _ClassVar[Codec]
    CODEC_MXINT8: _ClassVar[Codec]
    CODEC_MXINT4: _ClassVar[Codec]

class MembershipKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBERSHIP_KIND_UNSPECIFIED: _ClassVar[MembershipKind]
    MEMBERSHIP_KIND_JOIN: _ClassVar[MembershipKind]
    MEMBERSHIP_KIND_LEAVE: _ClassVar[MembershipKind]
    MEMBERSHIP_KIND_ROTATE_KEY: _ClassVar[MembershipKind]
    MEMBERSHIP_KIND_REGISTER_DATASET: _ClassVar[MembershipKind]
    MEMBERSHIP_KIND_REVOKE_DATASET: _ClassVar[MembershipKind]

class RelayState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELAY_STATE_UNSPECIFIED: _ClassVar[RelayState]
    RELAY_STATE_ACCEPTED: _ClassVar[RelayState]
    RELAY_STATE_MINED: _ClassVar[RelayState]
    RELAY_STATE_SKIPPED: _ClassVar[RelayState]
    RELAY_STATE_REFUSED: _ClassVar[RelayState]
ROUND_PHASE_UNSPECIFIED: RoundPhase
ROUND_PHASE_WAITING: RoundPhase
ROUND_PHASE_INTAKE: RoundPhase
ROUND_PHASE_COMBINING: RoundPhase
ROUND_PHASE_ROLLING: RoundPhase
ROUND_PHASE_FINISHED: RoundPhase
ROUND_PHASE_OPENED: RoundPhase
CODEC_UNSPECIFIED: Codec
CODEC_F32: Codec
CODEC_BF16: Codec
CODEC_MXINT8: Codec
CODEC_MXINT4: Codec
MEMBERSHIP_KIND_UNSPECIFIED: MembershipKind
MEMBERSHIP_KIND_JOIN: MembershipKind
MEMBERSHIP_KIND_LEAVE: MembershipKind
MEMBERSHIP_KIND_ROTATE_KEY: MembershipKind
MEMBERSHIP_KIND_REGISTER_DATASET: MembershipKind
MEMBERSHIP_KIND_REVOKE_DATASET: MembershipKind
RELAY_STATE_UNSPECIFIED: RelayState
RELAY_STATE_ACCEPTED: RelayState
RELAY_STATE_MINED: RelayState
RELAY_STATE_SKIPPED: RelayState
RELAY_STATE_REFUSED: RelayState

class GetRunRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("spec", "chain_id", "run", "signature")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    spec: bytes
    chain_id: int
    run: bytes
    signature: bytes
    def __init__(self, spec: _Optional[bytes] = ..., chain_id: _Optional[int] = ..., run: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("node", "session", "chain_id", "run")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    session: SignedSession
    chain_id: int
    run: bytes
    def __init__(self, node: _Optional[bytes] = ..., session: _Optional[_Union[SignedSession, _Mapping]] = ..., chain_id: _Optional[int] = ..., run: _Optional[bytes] = ...) -> None: ...

class SignedSession(_message.Message):
    __slots__ = ("node", "nonce", "cert_digest", "expires", "signature")
    NODE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    CERT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    nonce: bytes
    cert_digest: bytes
    expires: int
    signature: bytes
    def __init__(self, node: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., cert_digest: _Optional[bytes] = ..., expires: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("challenge", "token")
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    challenge: Challenge
    token: str
    def __init__(self, challenge: _Optional[_Union[Challenge, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class Challenge(_message.Message):
    __slots__ = ("nonce", "expires")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    expires: int
    def __init__(self, nonce: _Optional[bytes] = ..., expires: _Optional[int] = ...) -> None: ...

class WatchRoundsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchRoundsResponse(_message.Message):
    __slots__ = ("state", "signature")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    state: bytes
    signature: bytes
    def __init__(self, state: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RoundState(_message.Message):
    __slots__ = ("phase", "round", "step", "seed", "deadline", "base", "block_number", "block_hash", "admitted", "cohort", "begun", "record")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    phase: RoundPhase
    round: int
    step: int
    seed: bytes
    deadline: int
    base: bytes
    block_number: int
    block_hash: bytes
    admitted: _containers.RepeatedScalarFieldContainer[bytes]
    cohort: _containers.RepeatedScalarFieldContainer[bytes]
    begun: _containers.RepeatedScalarFieldContainer[bytes]
    record: bytes
    def __init__(self, phase: _Optional[_Union[RoundPhase, str]] = ..., round: _Optional[int] = ..., step: _Optional[int] = ..., seed: _Optional[bytes] = ..., deadline: _Optional[int] = ..., base: _Optional[bytes] = ..., block_number: _Optional[int] = ..., block_hash: _Optional[bytes] = ..., admitted: _Optional[_Iterable[bytes]] = ..., cohort: _Optional[_Iterable[bytes]] = ..., begun: _Optional[_Iterable[bytes]] = ..., record: _Optional[bytes] = ...) -> None: ...

class DownloadBlobRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    offset: int
    def __init__(self, digest: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadBlobResponse(_message.Message):
    __slots__ = ("data", "size")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    size: int
    def __init__(self, data: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class QueryUploadRequest(_message.Message):
    __slots__ = ("round", "seed")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    round: int
    seed: bytes
    def __init__(self, round: _Optional[int] = ..., seed: _Optional[bytes] = ...) -> None: ...

class QueryUploadResponse(_message.Message):
    __slots__ = ("committed", "digest", "receipt")
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    committed: int
    digest: bytes
    receipt: SignedReceipt
    def __init__(self, committed: _Optional[int] = ..., digest: _Optional[bytes] = ..., receipt: _Optional[_Union[SignedReceipt, _Mapping]] = ...) -> None: ...

class UploadUpdateRequest(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("manifest", "offset", "codec_error")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CODEC_ERROR_FIELD_NUMBER: _ClassVar[int]
    manifest: SignedManifest
    offset: int
    codec_error: float
    def __init__(self, manifest: _Optional[_Union[SignedManifest, _Mapping]] = ..., offset: _Optional[int] = ..., codec_error: _Optional[float] = ...) -> None: ...

class SignedManifest(_message.Message):
    __slots__ = ("node", "round", "seed", "spec", "base", "digest", "tensor_root", "dataset_root", "size", "examples", "codec", "signature")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TENSOR_ROOT_FIELD_NUMBER: _ClassVar[int]
    DATASET_ROOT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    round: int
    seed: bytes
    spec: bytes
    base: bytes
    digest: bytes
    tensor_root: bytes
    dataset_root: bytes
    size: int
    examples: int
    codec: Codec
    signature: bytes
    def __init__(self, node: _Optional[bytes] = ..., round: _Optional[int] = ..., seed: _Optional[bytes] = ..., spec: _Optional[bytes] = ..., base: _Optional[bytes] = ..., digest: _Optional[bytes] = ..., tensor_root: _Optional[bytes] = ..., dataset_root: _Optional[bytes] = ..., size: _Optional[int] = ..., examples: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class UploadUpdateResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: SignedReceipt
    def __init__(self, receipt: _Optional[_Union[SignedReceipt, _Mapping]] = ...) -> None: ...

class SignedReceipt(_message.Message):
    __slots__ = ("node", "round", "seed", "spec", "digest", "tensor_root", "dataset_root", "weight", "manifest", "signature")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TENSOR_ROOT_FIELD_NUMBER: _ClassVar[int]
    DATASET_ROOT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    node: bytes
    round: int
    seed: bytes
    spec: bytes
    digest: bytes
    tensor_root: bytes
    dataset_root: bytes
    weight: int
    manifest: bytes
    signature: bytes
    def __init__(self, node: _Optional[bytes] = ..., round: _Optional[int] = ..., seed: _Optional[bytes] = ..., spec: _Optional[bytes] = ..., digest: _Optional[bytes] = ..., tensor_root: _Optional[bytes] = ..., dataset_root: _Optional[bytes] = ..., weight: _Optional[int] = ..., manifest: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class GetRoundAuditRequest(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: int
    def __init__(self, round: _Optional[int] = ...) -> None: ...

class GetRoundAuditResponse(_message.Message):
    __slots__ = ("record", "adapter", "updates")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    record: bytes
    adapter: bytes
    updates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, record: _Optional[bytes] = ..., adapter: _Optional[bytes] = ..., updates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RelayRequest(_message.Message):
    __slots__ = ("chain_id", "run", "messages")
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    chain_id: int
    run: bytes
    messages: _containers.RepeatedCompositeFieldContainer[MembershipMessage]
    def __init__(self, chain_id: _Optional[int] = ..., run: _Optional[bytes] = ..., messages: _Optional[_Iterable[_Union[MembershipMessage, _Mapping]]] = ...) -> None: ...

class MembershipMessage(_message.Message):
    __slots__ = ("kind", "node", "seq", "deadline", "subject", "records", "signature", "invite")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    INVITE_FIELD_NUMBER: _ClassVar[int]
    kind: MembershipKind
    node: bytes
    seq: int
    deadline: int
    subject: bytes
    records: int
    signature: bytes
    invite: Invite
    def __init__(self, kind: _Optional[_Union[MembershipKind, str]] = ..., node: _Optional[bytes] = ..., seq: _Optional[int] = ..., deadline: _Optional[int] = ..., subject: _Optional[bytes] = ..., records: _Optional[int] = ..., signature: _Optional[bytes] = ..., invite: _Optional[_Union[Invite, _Mapping]] = ...) -> None: ...

class Invite(_message.Message):
    __slots__ = ("deadline", "signature")
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    deadline: int
    signature: bytes
    def __init__(self, deadline: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RelayResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RelayResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RelayResult, _Mapping]]] = ...) -> None: ...

class RelayResult(_message.Message):
    __slots__ = ("state", "tx", "error", "reason")
    STATE_FIELD_NUMBER: _ClassVar[int]
    TX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    state: RelayState
    tx: bytes
    error: str
    reason: str
    def __init__(self, state: _Optional[_Union[RelayState, str]] = ..., tx: _Optional[bytes] = ..., error: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
