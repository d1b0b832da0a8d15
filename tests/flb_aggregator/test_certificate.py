# SPDX-License-Identifier: Apache-2.0
"""Certificates on disk: made once, read back, refused when damaged, and one rename from state to state."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from flb.errors import CorruptStore
from flb.identity import TLS_NAME, certificate_digest
from flb.types import ZERO_DIGEST
from flb_aggregator import certificate
from flb_aggregator.certificate import Certificates

pytestmark = pytest.mark.unit


def test_make__what_it_says__is_a_p256_certificate_of_the_constant_name() -> None:
    made, other = certificate.make(), certificate.make()
    read, second = (x509.load_pem_x509_certificate(each.pem) for each in (made, other))
    key = read.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [TLS_NAME]
    assert read.subject == read.issuer == second.subject and read.serial_number != second.serial_number
    assert read.not_valid_before_utc < datetime(2021, 1, 1, tzinfo=UTC) and read.not_valid_after_utc.year == 9999
    read.verify_directly_issued_by(read)


def test_open__first_and_later_start__keeps_one_pair_that_only_its_owner_reads(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    first = Certificates(tmp_path / "tls")
    again = Certificates(tmp_path / "tls")
    assert again.current == first.current and again.next is None and not again.requested()
    path = tmp_path / "tls" / "current.pem"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    der = x509.load_pem_x509_certificate(first.current.pem).public_bytes(Encoding.DER)
    assert first.current.digest == certificate_digest(der) and first.digests() == {first.current.digest}


def test_open__later_start__does_not_import_cryptography(tmp_path: Path) -> None:
    Certificates(tmp_path / "tls")
    code = (
        "import sys; from pathlib import Path; from flb_aggregator import app; "
        "from flb_aggregator.certificate import Certificates; Certificates(Path(sys.argv[1])); "
        "print([name for name in sys.modules if name.split('.')[0] == 'cryptography'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "tls")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    other = certificate.make()
    path.write_bytes({
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "text": b"not a certificate\n",
        "two": whole + whole,
        "stranger's key": other.key + whole[whole.index(b"-----BEGIN CERTIFICATE") :],
        "flipped": whole.replace(b"MI", b"NI"),
        "no letters": whole[:200] + b"\xff\xfe" + whole[202:],
    }[how])  # fmt: skip


@pytest.mark.parametrize("name", ["current", "next"])
@pytest.mark.parametrize("how", ["empty", "half", "text", "two", "stranger's key", "flipped", "no letters"])
def test_open__damaged_file__is_one_sentence(tmp_path: Path, name: str, how: str) -> None:
    Certificates(tmp_path).prepare()
    damage(tmp_path / f"{name}.pem", how)
    with pytest.raises(CorruptStore, match=f"{name}.pem is no key with its certificate: restore the file"):
        Certificates(tmp_path)


def test_prepare__asked_twice__makes_one_and_takes_the_request_back(tmp_path: Path) -> None:
    held = Certificates(tmp_path)
    assert held.next_digest == ZERO_DIGEST
    held.request()
    assert Certificates(tmp_path).requested()
    held.prepare()
    made = held.next
    held.request()
    held.prepare()
    assert held.next is made and made is not None and not held.requested()
    assert held.digests() == {held.current.digest, made.digest} and len(held.digests()) == 2
    assert Certificates(tmp_path).next == made


def test_switch__next_becomes_current__and_nothing_else_is_left(tmp_path: Path) -> None:
    held = Certificates(tmp_path)
    held.prepare()
    made = held.next
    held.switch()
    assert held.current == made and held.next is None
    assert Certificates(tmp_path).current == made
    assert [path.name for path in tmp_path.iterdir()] == ["current.pem"]


def test_open__left_by_a_killed_process__sweeps_half_written_files(tmp_path: Path) -> None:
    Certificates(tmp_path)
    (tmp_path / ".next.pem.1.part").write_bytes(b"half a key")
    Certificates(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["current.pem"]
