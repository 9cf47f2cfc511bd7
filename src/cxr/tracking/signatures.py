"""Signatures of versions: made with a key of one's own at registration, checked before a version is loaded.

The files are those of the OpenSSF's `model-signing`, whose command checks them without this project.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cxr.errors import MissingInputError, ParameterError, UnverifiedVersionError
from cxr.files import scratch_folder
from cxr.models.stored_files import sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SIGNATURE_FILE = "model.sig"
"""File in the root of a version's files; it signs all the others."""
SIGNED_BY = "signed_by"
"""Tag of a version: id of the key that it was signed with. It informs; only the signature itself proves anything."""
KEY_VARIABLE, PASSWORD_VARIABLE = "CXR_SIGNING_KEY", "CXR_SIGNING_PASSWORD"
"""Environment variables: file of the private key where no parameter names one, and the password of an encrypted key."""
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
"""Curves that `model-signing` knows, with their usual names."""
NEW_KEY = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE`"
PUBLIC_PART = "`openssl pkey -in PRIVATE -pubout -out PUBLIC` writes the public part of a private key"
_PUBLIC_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_SHOWN_FILES = 5


@dataclass(frozen=True)
class SigningKey:
    """A private key that signs versions.

    Attributes:
        path: PEM file of the key. Its content is read again for each signature and kept nowhere.
        key_id: SHA-256 of the PEM text of its public part, 64 hex digits.
        password: password of the file; None if it is not encrypted.
    """

    path: Path
    key_id: str
    password: bytes | None = field(repr=False)

    @classmethod
    def read(cls, path: Path | None) -> Self | None:
        """Read a key, and refuse one that cannot sign before anything is done with it.

        Args:
            path: PEM file of the private key; None takes the one that :data:`KEY_VARIABLE` names.

        Returns:
            The key; None if no file is named.

        Raises:
            MissingInputError: if there is no such file.
            ParameterError: if the file holds no elliptic-curve key, or its password is missing or wrong.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        name = "signing_key" if path is not None else KEY_VARIABLE
        if path is None:
            if not os.environ.get(KEY_VARIABLE):
                return None
            path = Path(os.environ[KEY_VARIABLE])
        data, password = _read_pem(path, name, "a private key"), os.environ.get(PASSWORD_VARIABLE, "").encode() or None
        if b"PRIVATE KEY-----" not in data:
            raise ParameterError(
                [f"expected a private key in PEM, received {name}={path} without one; {NEW_KEY}"]
            )  # fmt: skip
        password = password if b"ENCRYPTED" in data else None
        try:
            key: Any = load_pem_private_key(data, password)
        except TypeError:
            raise ParameterError(
                [f"expected the password of {name}={path} in {PASSWORD_VARIABLE}, received none; set this variable"]
            ) from None
        except (ValueError, UnsupportedAlgorithm):  # their texts name parts of OpenSSL, and might quote the file
            remedy = f"check {PASSWORD_VARIABLE}" if password else f"the file is damaged: restore it, or {NEW_KEY}"
            raise ParameterError(
                [f"expected a private key that can be read, received {name}={path}; {remedy}"]
            ) from None
        return cls(path, _check_curve(key.public_key(), f"{name}={path}"), password)

    def sign(self, folder: Path) -> Path:
        """Sign all files of a folder.

        Args:
            folder: the files of a version. A signature that is there already is replaced.

        Returns:
            The written signature.
        """
        from model_signing.signing import Config

        signature = folder / SIGNATURE_FILE
        signature.unlink(missing_ok=True)
        signer = Config().use_elliptic_key_signer(private_key=self.path, password=self.password)
        signer.set_hashing_config(_all_but_the_signature()).sign(folder, signature)
        return signature


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys: a version that none of them has signed is not loaded.

    Attributes:
        path: PEM file of the keys, for messages.
        keys: id of each key to its PEM text.
    """

    path: Path
    keys: Mapping[str, bytes]

    @classmethod
    def read(cls, path: Path | None) -> Self | None:
        """Read one or several public keys.

        Args:
            path: PEM file; None asks for no signatures.

        Returns:
            The keys; None without a file.

        Raises:
            MissingInputError: if there is no such file.
            ParameterError: if the file holds anything but public keys of elliptic curves.
        """
        if path is None:
            return None
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        received, data = f"require_signature={path}", _read_pem(path, "require_signature", "public keys")
        if b"PRIVATE KEY-----" in data:
            raise ParameterError(
                [f"expected public keys, received {received} with a private key, which must not be where versions are "
                 f"only checked; {PUBLIC_PART}"]
            )  # fmt: skip
        keys = {}
        for block in _PUBLIC_BLOCK.findall(data):
            try:
                key: Any = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm):
                raise ParameterError(
                    [f"expected public keys in PEM, received {received} with a damaged one; {PUBLIC_PART}"]
                ) from None
            keys[_check_curve(key, received)] = _to_pem(key)
        if not keys:
            raise ParameterError([f"expected public keys in PEM, received {received} without any; {PUBLIC_PART}"])
        return cls(path, keys)

    def check(self, folder: Path, title: str) -> None:
        """Refuse the files of a version unless one of the keys has signed exactly them.

        Args:
            folder: all files of the version.
            title: the version's number and name, for messages.

        Raises:
            UnverifiedVersionError: if the signature is missing, damaged, or by another key, or if a file was changed,
                added or removed.
        """
        from model_signing.verifying import Config

        signature = folder / SIGNATURE_FILE
        if not signature.is_file():
            raise self.unsigned(title)
        expected = f"expected {title} with a signature by a key of {self.path}"
        try:
            content = json.loads(signature.read_bytes())
            key_id = str(content["verificationMaterial"]["publicKey"]["hint"])
        except (KeyError, TypeError, ValueError):
            raise UnverifiedVersionError(
                f"{expected}, received a damaged {SIGNATURE_FILE}: nothing is loaded; restore it; {_SIGN_AGAIN}"
            ) from None
        if key_id not in self.keys:
            raise UnverifiedVersionError(
                f"{expected}, received one by another key (SHA-256 {key_id[:16]}): nothing is loaded; if you "
                f"trust that key, add its public part to {self.path}; {_SIGN_AGAIN}"
            )
        with scratch_folder() as scratch:
            key = scratch / "key.pem"
            key.write_bytes(self.keys[key_id])
            verifier = Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(_all_but_the_signature())
            try:
                verifier.verify(folder, signature)
            except Exception as error:  # a signature that somebody has written by hand can raise anything
                changes = _describe_changes(folder, content) or f"a {SIGNATURE_FILE} that this key has not made"
                raise UnverifiedVersionError(
                    f"expected {title} as it was signed, received {changes}: nothing is loaded; restore the files from "
                    "a copy, or run `cxr rollback`, delete the version in MLflow's page and register the model again"
                ) from error

    def unsigned(self, title: str) -> UnverifiedVersionError:
        """Word the refusal of a version without a signature.

        Args:
            title: the version's number and name.

        Returns:
            The error.
        """
        return UnverifiedVersionError(
            f"expected {title} with a signature by a key of {self.path}, received an unsigned version: nothing is "
            f"loaded; {_SIGN_AGAIN}"
        )


_SIGN_AGAIN = "if you trust its files, run `cxr sign VERSION --signing_key FILE`"


def _read_pem(path: Path, name: str, expected: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingInputError(
            f"expected a file with {expected} in PEM, received {name}={path} ({error.strerror}); check the path"
        ) from error


def _check_curve(key: Any, received: str) -> str:
    """Refuse a public key that `model-signing` does not know; returns its id."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    is_curve = isinstance(key, EllipticCurvePublicKey)
    if not is_curve or key.curve.name not in CURVES:
        kind = f"the curve {key.curve.name}" if is_curve else "a key of another kind"
        raise ParameterError(
            [f"expected a key of an elliptic curve ({', '.join(CURVES.values())}), received {received} with {kind}; "
             f"{NEW_KEY}"]
        )  # fmt: skip
    return hashlib.sha256(_to_pem(key)).hexdigest()


def _to_pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _all_but_the_signature() -> Any:
    """What is signed. By default `model-signing` would let anybody add a file such as ``.gitignore``."""
    from model_signing.hashing import Config

    return Config().use_file_serialization().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)


def _describe_changes(folder: Path, signature: Mapping[str, Any]) -> str:
    """Name the files that differ from those that a signature lists; empty if none does. Only words a refusal."""
    try:
        statement = json.loads(base64.b64decode(signature["dsseEnvelope"]["payload"]))
        expected = {entry["name"]: entry["digest"] for entry in statement["predicate"]["resources"]}
    except (KeyError, TypeError, ValueError):
        return ""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    del paths[SIGNATURE_FILE]
    changes = {
        "changed": [name for name in expected if name in paths and sha256(paths[name]) != expected[name]],
        "missing": sorted(set(expected) - set(paths)),
        "added": sorted(set(paths) - set(expected)),
    }
    return ", ".join(
        f"{len(names)} {change} ({', '.join(names[:_SHOWN_FILES])}{' ...' if len(names) > _SHOWN_FILES else ''})"
        for change, names in changes.items()
        if names
    )
