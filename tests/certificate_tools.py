"""An authority that signs certificates, good and bad ones, for tests of content credentials."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """An operator's authority, which signs with P-384."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP384R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio Authority")])
        self.certificate = (
            self._builder(self._name, self._key, days=100)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA384())
        )

    def write(self, path: Path) -> Path:
        """Write the authority's own certificate."""
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(
        self, folder: Path, *, days: float = 10, usable: bool = True, password: bytes | None = None
    ) -> tuple[Path, Path]:
        """Write a certificate that ends in so many days, and its private key.

        Args:
            usable: for content credentials; else it is one of a web server.
            password: of the private key's file.
        """
        key = ec.generate_private_key(ec.SECP384R1())
        usage = ExtendedKeyUsageOID.EMAIL_PROTECTION if usable else ExtendedKeyUsageOID.SERVER_AUTH
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio")])
        certificate = (
            self._builder(name, key, days=days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA384())
        )
        lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem, private = serialization.Encoding.PEM, folder / "studio.key"
        (folder / "studio.pem").write_bytes(certificate.public_bytes(pem))
        private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, lock))
        return folder / "studio.pem", private

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: float) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder(subject_name=name, issuer_name=self._name, public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=days))
        )
