"""Keys of elliptic curves as `openssl genpkey` and `openssl pkey -pubout` write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cxr.tracking.signatures import SigningKey, TrustedKeys


@dataclass(frozen=True)
class KeyPair:
    """Files of a private key and of its public part."""

    private: Path
    public: Path

    @property
    def signing(self) -> SigningKey:
        key = SigningKey.read(self.private)
        assert key is not None
        return key

    @property
    def trusted(self) -> TrustedKeys:
        keys = TrustedKeys.read(self.public)
        assert keys is not None
        return keys


def write_keys(
    folder: Path, name: str, *, curve: ec.EllipticCurve | None = None, password: str | None = None
) -> KeyPair:
    """Make a key of P-256, or of another curve."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    return _write(folder, name, key, password)


def write_rsa_keys(folder: Path, name: str) -> KeyPair:
    """Make a key that is not one of an elliptic curve."""
    return _write(folder, name, rsa.generate_private_key(65537, 2048), None)


def _write(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: str | None
) -> KeyPair:
    pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.pub")
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair
