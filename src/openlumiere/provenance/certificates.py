"""Certificates for content credentials: made on the spot, or read and checked.

What they must hold: C2PA Technical Specification 2.x, section "X.509 Certificates".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

_ORGANIZATION = "openlumiere"
_YEARS = 30  # a signature without a time stamp ends with its certificate
_CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")  # c2pa-kp-claimSigning
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


class Made(NamedTuple):
    """A new signer, PEM each: its private key, its certificate, and the certificate of the root that signed it."""

    private_key: bytes
    certificate: bytes
    root: bytes


def make() -> Made:
    """Make an ES256 key with a certificate, signed by a root of its own.

    The names say nothing of the machine or its user. The root's private key is not kept, so nobody can sign other
    certificates with it.
    """
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    number = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
    root_name, name = (_name(f"openlumiere installation {number}{what}") for what in (" root", ""))
    root = (
        _builder(root_name, root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    certificate = (
        _builder(name, root_name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_CLAIM_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Made(private, certificate.public_bytes(pem), root.public_bytes(pem))


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def check(certificate: Path, private_key: Path) -> str:
    """Check that a certificate holds today and belongs to a private key; return the algorithm, as C2PA names it.

    Raises:
        LumiereError: one of them can't be read, they are no pair, the certificate is out of date, or the key is of a
            kind that C2PA has no signatures for.
    """
    signer = read(certificate)[0]
    data = _read(private_key, "private key")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise LumiereError(f"the private key {private_key} has a password; give it without one") from error
    except ValueError as error:
        raise LumiereError(
            f"{private_key} is no private key in PEM form, or is damaged; put the right one back"
        ) from error
    if key.public_key() != signer.public_key():
        raise LumiereError(f"{private_key} is not the private key of {certificate}; give the two that belong together")
    if not signer.not_valid_before_utc <= datetime.now(UTC) <= signer.not_valid_after_utc:
        raise LumiereError(
            f"{certificate} is valid from {signer.not_valid_before_utc:%Y-%m-%d} to "
            f"{signer.not_valid_after_utc:%Y-%m-%d} only; renew it"
        )
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise LumiereError(f"{private_key} is of a kind that can't sign credentials; make one on the curve P-256")


def read(path: Path) -> list[x509.Certificate]:
    """Read the certificates of a PEM file, at least one.

    Raises:
        LumiereError: it can't be read, or holds none.
    """
    data = _read(path, "certificate")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise LumiereError(f"{path} is no certificate in PEM form, or is damaged; put the right one back") from error


def to_pem(certificate: x509.Certificate) -> str:
    """Return a certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LumiereError(f"the {what} {path} can't be read ({one_line(error.strerror or error)})") from error
