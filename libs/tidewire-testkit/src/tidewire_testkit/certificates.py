"""A certificate authority for tests of TLS: it lives as long as the test and signs for localhost."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)
_VALID = 365 * _DAY
_CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """A self-made authority."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _named(f"{name} authority")
        self._certificate = (
            self._builder(self._subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_CA_KEY_USAGE, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def write(self, directory: Path) -> Path:
        """Writes the authority's certificate and returns its file."""
        path = directory / f"{self.name}-ca.pem"
        path.write_bytes(self._certificate.public_bytes(Encoding.PEM))
        return path

    def issue(
        self,
        directory: Path,
        name: str,
        *,
        names: Sequence[str] = (),
        addresses: Sequence[str] = ("127.0.0.1",),
        expired: bool = False,
    ) -> tuple[Path, Path]:
        """Writes a new certificate for localhost and its key, replacing older ones; returns (certificate, key).

        names: further DNS names it is good for. addresses: IP addresses it is good for. expired: it was good until an
        hour ago.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        dns = [x509.DNSName(one) for one in ("localhost", *names)]
        all_names = [*dns, *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
        certificate = (
            self._builder(_named(name), key.public_key(), expired=expired)
            .add_extension(x509.SubjectAlternativeName(all_names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
        _replace(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        _replace(cert_file, certificate.public_bytes(Encoding.PEM))
        return cert_file, key_file

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key)
        return (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now - _DAY / 24 if expired else now + _VALID)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.replace(path)
