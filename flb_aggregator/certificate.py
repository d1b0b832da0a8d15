# SPDX-License-Identifier: Apache-2.0
"""The aggregator's own TLS certificates: made at first start, read at later ones, renewed when the operator asks.

No authority signs them. The registry names the SHA-256 of a certificate's DER bytes, and a node trusts exactly the
one certificate that has it. Key and certificate stand in one file, so that a kill never leaves one without the other.
`cryptography` is imported where a certificate is made and nowhere else: it would be a tenth of this process's memory.
"""

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flb.errors import CorruptStore, disk_error
from flb.identity import TLS_NAME, certificate_digest
from flb.store import sync_folder, write_atomic
from flb.types import ZERO_DIGEST, Digest

PAIR = re.compile(
    rb"(-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\s+)"
    rb"(-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\s+)"
)
FROM, UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""A clock that is wrong must not make a certificate invalid; the registry ends it (RFC 5280, 4.1.2.5)."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A private key and its self-signed certificate, both PEM, and the digest that the registry names."""

    key: bytes
    pem: bytes
    digest: Digest


def make() -> Certificate:
    """A new P-256 key and its certificate; subject and name are constant, key and serial number are random."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, TLS_NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(FROM)
        .not_valid_after(UNTIL)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Certificate(secret, certificate.public_bytes(serialization.Encoding.PEM), certificate_digest(der))


def read(path: Path) -> Certificate:
    """The pair in a file. Raises CorruptStore where it is damaged or key and certificate do not belong together."""
    damaged = CorruptStore(f"{path} is no key with its certificate", "restore the file, or delete it to have a new one")
    try:
        found = PAIR.fullmatch(path.read_bytes())
        if found is None:
            raise damaged
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password=lambda: b"")  # it asks nobody
        der = ssl.PEM_cert_to_DER_cert(found[2].decode())
    except (ssl.SSLError, ValueError) as error:
        raise damaged from error
    except OSError as error:
        raise disk_error(error) from error
    return Certificate(found[1], found[2], certificate_digest(der))


class Certificates:
    """The certificate that is served, the one that follows it while a rotation runs, and whether one is asked for.

    The state is what files exist: `current.pem` always, `next.pem` from the start of a rotation until the switch,
    `rotate` from the request until `next.pem` is there. Every change is one rename, so each kill leaves one of them.
    """

    def __init__(self, folder: Path) -> None:
        """Read the folder, or make it with a first certificate. Raises CorruptStore or DiskError."""
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in folder.glob(".*.part"):  # a killed process wrote it, and it may hold half a key
                left.unlink()
        except OSError as error:
            raise disk_error(error) from error
        self.current = read(self.path("current")) if self.path("current").exists() else self.write("current")
        self.next = read(self.path("next")) if self.path("next").exists() else None

    def path(self, name: str) -> Path:
        """The file of a pair."""
        return self.folder / f"{name}.pem"

    def write(self, name: str) -> Certificate:
        """Make a pair and write it down."""
        made = make()
        try:
            write_atomic(self.path(name), made.key + made.pem, mode=0o600)
        except OSError as error:
            raise disk_error(error) from error
        return made

    @property
    def next_digest(self) -> Digest:
        """The digest of the next certificate; zero while none is prepared."""
        return self.next.digest if self.next is not None else ZERO_DIGEST

    def digests(self) -> frozenset[Digest]:
        """Of the current and the next certificate."""
        return frozenset(each.digest for each in (self.current, self.next) if each is not None)

    def request(self) -> None:
        """Ask for a rotation; the request outlives this process."""
        write_atomic(self.folder / "rotate", b"")

    def requested(self) -> bool:
        """Whether a rotation is asked for."""
        return (self.folder / "rotate").exists()

    def prepare(self) -> None:
        """Make the next certificate, unless there is one; a request is met by it."""
        if self.next is None:
            self.next = self.write("next")
        (self.folder / "rotate").unlink(missing_ok=True)

    def switch(self) -> None:
        """Serve the next certificate from now on, and forget the one before it."""
        assert self.next is not None
        self.path("next").rename(self.path("current"))
        sync_folder(self.folder)
        self.current, self.next = self.next, None
