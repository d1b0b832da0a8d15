# SPDX-License-Identifier: Apache-2.0
"""From a fault to the end of a gRPC call: status, sentence, and the stable code in the trailing metadata."""

import math
from typing import Any, NoReturn, TypeAlias

import grpc

from flb.errors import Busy, FLBError

Context: TypeAlias = Any
"""grpc.aio.ServicerContext, which comes without types."""
Trailing: TypeAlias = tuple[str, str | bytes]
CODE, RETRY, RECEIPT = "flb-code", "flb-retry-ms", "flb-receipt-bin"


async def refuse(context: Context, error: FLBError, *trailing: Trailing) -> NoReturn:
    """End a call with the error's status, sentence and code; one that passes also says when to come back."""
    extra = [(CODE, error.code), *trailing]
    if isinstance(error, Busy):
        extra.append((RETRY, str(math.ceil(error.retry_seconds * 1000))))
    await context.abort(getattr(grpc.StatusCode, error.status), str(error), tuple(extra))
    raise AssertionError("abort raises")
