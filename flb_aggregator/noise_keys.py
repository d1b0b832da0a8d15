# SPDX-License-Identifier: Apache-2.0
"""Keys of the noise that the aggregator adds, and what every key cost the run, in one folder.

A key is drawn from the operating system, and on the medium with its charge before it is used. It belongs to one run,
step, base and closing: a restart finds it and makes the same bytes; another closing, as a reorg brings one, is another
release with another key and another charge. Once a later step is open the key is deleted. Charges stay.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from flb.errors import CorruptStore, Refused
from flb.privacy import central
from flb.privacy.accountant import MARGIN
from flb.privacy.discrete_gaussian import KEY_BYTES
from flb.privacy.ledger import ID_BYTES, Charge, of_run, read, spent
from flb.records import Closing, closing_to_json
from flb.spec_sections import PrivacySpec
from flb.store import sync_folder, write_atomic
from flb.types import Address, Opening, Step

LEDGER = "charges.jsonl"
SECRET = 0o600


class NoiseKeys:
    """The folder. `draw` gives a new key of so many bytes for a name; only a simulation gives anything but chance."""

    def __init__(self, folder: Path, run: Address, draw: Callable[[int, str], bytes]) -> None:
        self.folder, self.run, self._draw = folder, run, draw

    def take(self, privacy: PrivacySpec, opening: Opening, closing: Closing) -> tuple[bytes, int]:
        """The key of a closed round, and the releases of the run up to it. Raises Refused where a new one would bring the
        run beyond its budget, CorruptStore for a file that is not what was written."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            sync_folder(self.folder.parent)
        name = name_of(self.run, opening, closing)
        path = self.folder / f"{opening.step}-{name}.key"
        if path.exists():
            key = path.read_bytes()
            if len(key) != KEY_BYTES:
                raise CorruptStore(f"{path} is no noise key", "restore it from a copy")
        else:
            self._check_budget(privacy, opening)
            key = self._draw(KEY_BYTES, name)
            write_atomic(path, key, SECRET)
        return key, self._charge(privacy, opening, key)

    def _charge(self, privacy: PrivacySpec, opening: Opening, key: bytes) -> int:
        named = hashlib.sha256(b"flb noise key" + key).digest()[:ID_BYTES]
        charges, text = self._read()
        own = [charge.key for charge in of_run(charges, self.run)]
        if named not in own:
            charge = Charge(self.run, opening.step, opening.base, named, central.mu(privacy))
            write_atomic(self.folder / LEDGER, text + charge.line(), SECRET)
            own.append(named)
        return own.index(named) + 1

    def _read(self) -> tuple[list[Charge], bytes]:
        path = self.folder / LEDGER
        text = path.read_bytes() if path.exists() else b""
        charges, whole = read(text)
        return charges, text[:whole]

    def _check_budget(self, privacy: PrivacySpec, opening: Opening) -> None:
        if not privacy.epsilon:
            return
        further = Charge(self.run, opening.step, opening.base, bytes(ID_BYTES), central.mu(privacy))
        after = spent([*of_run(self._read()[0], self.run), further], privacy.delta)
        if after > privacy.epsilon * (1 + MARGIN):
            raise Refused(
                f"round {opening.round} would bring the run to epsilon {after:.4g}, beyond its budget of "
                f"{privacy.epsilon:g}",
                "the run ends here: what was spent is never given back",
            )

    def forget(self, before: Step | None = None) -> None:
        """Delete the keys of earlier steps, whose rounds are final; None deletes all."""
        for path in self.folder.glob("*-*.key"):
            if before is None or int(path.name.partition("-")[0]) < before:
                path.unlink()


def name_of(run: Address, opening: Opening, closing: Closing) -> str:
    """What a key is for: SHA-256 over run, step, base and all of the closing, in hex."""
    fields = {"run": run.hex(), "step": opening.step, "base": opening.base.hex(), "closing": closing_to_json(closing)}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
