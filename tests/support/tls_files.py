"""Certificates of an authority of the tests' own, for both sides of a connection."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cxr.pacs.settings import TlsFiles


def write_tls_files(folder: Path, *names: str) -> dict[str, TlsFiles]:
    """Write an authority, and a certificate for 127.0.0.1 with its key under each name."""
    folder.mkdir(parents=True)
    authority_key, authority_name = ec.generate_private_key(ec.SECP256R1()), _name("authority")
    authority = _certificate(authority_name, authority_key, authority_name, authority_key, is_authority=True)
    (folder / "authorities.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    files = {}
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(_name(name), key, authority_name, authority_key, is_authority=False)
        files[name] = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / "authorities.pem")
        files[name].certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        files[name].key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(issuer_key, hashes.SHA256())
    )
