# SPDX-License-Identifier: Apache-2.0
"""The updates of a sealed round, checked again as the aggregator checked them when it admitted them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from flb.admission import check_update
from flb.audit import Finding
from flb.errors import FLBError
from flb.spec import RunSpec
from flb.store import digest_of_file
from flb.types import Admitted, Round, Step


def check_updates(
    admitted: Sequence[Admitted], paths: Sequence[Path], spec: RunSpec, step: Step, number: Round
) -> Iterator[Finding]:
    """Digest and admission checks of every update's bytes."""
    for item, path in zip(admitted, paths, strict=True):
        if digest_of_file(path) != item.manifest.digest:
            yield Finding("the update's bytes differ from its signed digest", number, item.node)
            continue
        try:
            with path.open("rb", buffering=0) as file:

                def read(offset: int, part: memoryview) -> int:
                    file.seek(offset)
                    return file.readinto(part) or 0

                check_update(read, item.manifest, spec, step)
        except FLBError as error:
            yield Finding(f"the update should not have been admitted: {error.what}", number, item.node)
