"""A signed version is loaded as it was signed; a changed, unsigned or foreign one is not loaded at all."""

from __future__ import annotations

import base64
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow.entities.model_registry import ModelVersion

from cxr.cli.main import main
from cxr.errors import CxrError, DamagedVersionError, MissingInputError, ParameterError, UnverifiedVersionError
from cxr.lineage.provenance import describe_environment
from cxr.lineage.sbom import SBOM_FILE
from cxr.tracking.lineage_reader import read_lineage
from cxr.tracking.registry_reader import MODEL_PATH, fetch_model
from cxr.tracking.signatures import (
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    SIGNATURE_FILE,
    SIGNED_BY,
    SigningKey,
    TrustedKeys,
)
from cxr.tracking.store import Store
from cxr.tracking.version_evidence import read_sbom, sign_version
from support.model_folders import ModelFolders, write_models, write_store
from support.registrations import begin, ensure
from support.signing_keys import KeyPair, write_keys, write_rsa_keys

NAME = "signed"


@dataclass(frozen=True)
class SignedVersion:
    """A version that was signed at its registration, and the keys."""

    uri: str
    folders: ModelFolders
    version: ModelVersion
    key: KeyPair
    other_key: KeyPair

    @property
    def package(self) -> Path:
        """Its files, where the local store keeps them."""
        return Path(self.version.source.removeprefix("file://"))

    def store(self, keys: TrustedKeys | None = None) -> Store:
        return Store(self.uri, trusted_keys=keys or self.key.trusted)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> SignedVersion:
    """One version, which all tests of this file use."""
    folder = tmp_path_factory.mktemp("signed")
    key, other_key = write_keys(folder, "key"), write_keys(folder, "other", curve=ec.SECP384R1())
    environment = describe_environment(repository / "requirements")
    folders, uri = write_models(folder / "project", environment=environment), write_store(folder)
    store = Store(uri, signing_key=key.signing)
    version, _ = ensure(folders, store, NAME, begin(folders, store, NAME))
    return SignedVersion(uri, folders, version, key, other_key)


@pytest.fixture
def signed(registered: SignedVersion, tmp_path: Path) -> Iterator[SignedVersion]:
    """The version, whose files are as they were again after each test."""
    shutil.copytree(registered.package, tmp_path / "backup")
    yield registered
    shutil.rmtree(registered.package)
    shutil.copytree(tmp_path / "backup", registered.package)


def change_code(package: Path) -> None:
    code = package / "code" / "cxr" / "errors.py"
    code.write_text(code.read_text() + "# changed\n")


def change_statement(package: Path) -> None:
    """Write another list of files into the signature, as somebody without the key can."""
    content = json.loads((package / SIGNATURE_FILE).read_text())
    statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
    (package / "code" / "extra.py").write_text("")
    statement["predicate"]["resources"].append({"name": "code/extra.py", "algorithm": "sha256", "digest": "0" * 64})
    content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (package / SIGNATURE_FILE).write_text(json.dumps(content))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (change_code, r"as it was signed, received 1 changed \(code/cxr/errors\.py\): nothing is loaded"),
    "an added file": (lambda package: (package / ".gitignore").write_text("*"), r"received 1 added \(\.gitignore\)"),
    "a missing file": (
        lambda package: (package / MODEL_PATH / "model.keras").unlink(),
        r"received 1 missing \(artifacts/artifact/model\.keras\)",
    ),
    "no signature": (lambda package: (package / SIGNATURE_FILE).unlink(), r"received an unsigned version: nothing"),
    "no JSON": (lambda package: (package / SIGNATURE_FILE).write_text("{"), r"received a damaged model\.sig: nothing"),
    "another statement": (change_statement, r"version 1 of signed as it was signed, received .*: nothing is loaded"),
}


def test_a_version_is_loaded_with_the_key_that_signed_it_and_its_signature_is_that_of_the_standard(
    signed: SignedVersion, tmp_path: Path
) -> None:
    model = fetch_model(signed.store(), signed.version, tmp_path / "copy")
    assert (model / "model.keras").read_bytes() == (signed.package / MODEL_PATH / "model.keras").read_bytes()
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(signed.package)]
    files = ["--signature", str(signed.package / SIGNATURE_FILE), "--public_key", str(signed.key.public)]
    assert "Verification succeeded" in subprocess.run([*command, *files], capture_output=True, text=True).stdout
    assert "signed by key" in read_lineage(signed.store(), NAME, "1").to_text()
    assert signed.version.tags[SIGNED_BY] == signed.key.signing.key_id


@pytest.mark.parametrize("change", CHANGES)
def test_files_that_differ_from_the_signed_ones_are_not_loaded(
    signed: SignedVersion, tmp_path: Path, change: str
) -> None:
    make, sentence = CHANGES[change]
    make(signed.package)
    with pytest.raises(UnverifiedVersionError, match=sentence) as refusal:
        fetch_model(signed.store(), signed.version, tmp_path / "copy")
    assert refusal.value.exit_status == 2


def test_a_signature_by_another_key_is_refused_until_that_key_is_trusted_too(
    signed: SignedVersion, tmp_path: Path
) -> None:
    with pytest.raises(UnverifiedVersionError, match=f"by another key .SHA-256 {signed.key.signing.key_id[:16]}"):
        fetch_model(signed.store(signed.other_key.trusted), signed.version, tmp_path / "copy")
    both = tmp_path / "both.pub"
    both.write_bytes(signed.other_key.public.read_bytes() + signed.key.public.read_bytes())
    fetch_model(signed.store(TrustedKeys.read(both)), signed.version, tmp_path / "copy")


def test_files_of_another_signed_version_are_no_replacement(signed: SignedVersion, tmp_path: Path) -> None:
    card = signed.package / MODEL_PATH / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "threshold": 0.99}, indent=2))
    signed.key.signing.sign(signed.package)
    with pytest.raises(DamagedVersionError, match=r"damaged or changed files \(card\.json\)"):
        fetch_model(signed.store(), signed.version, tmp_path / "copy")


def test_a_version_is_signed_again_with_a_new_key_only_if_the_old_one_had_signed_it(
    signed: SignedVersion, tmp_path: Path
) -> None:
    new = signed.other_key
    assert sign_version(signed.store(), NAME, "1", new.signing) == "1"
    fetch_model(signed.store(new.trusted), signed.version, tmp_path / "copy")
    assert signed.store().client.get_model_version(NAME, "1").tags[SIGNED_BY] == new.signing.key_id
    with pytest.raises(UnverifiedVersionError, match="by another key"):
        sign_version(signed.store(), NAME, "1", signed.key.signing)
    (signed.package / MODEL_PATH / "model.keras").write_bytes(b"damaged")
    with pytest.raises(DamagedVersionError, match=r"model\.keras"):
        sign_version(Store(signed.uri), NAME, "1", signed.key.signing)


def test_registering_a_content_again_with_a_key_makes_no_version_and_says_how_to_sign_it(
    signed: SignedVersion, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cxr"):
        again = Store(signed.uri, signing_key=replace(signed.key.signing, key_id="0" * 64))
        version, is_new = ensure(signed.folders, again, NAME, str(signed.version.run_id))
    assert (str(version.version), is_new) == ("1", False)
    assert "is not signed with this key; if you trust its files, run `cxr sign 1`" in caplog.text


def test_no_part_of_the_private_key_is_in_the_store(registered: SignedVersion) -> None:
    lines = registered.key.private.read_bytes().splitlines()[1:-1]
    place = Path(registered.uri.removeprefix("sqlite:///")).parent
    stored = [path for path in place.rglob("*") if path.is_file() and path.suffix not in {".pem", ".pub"}]
    assert len(stored) > 50 and lines
    for path in stored:
        content = path.read_bytes()
        assert not any(line in content for line in lines) and str(registered.key.private).encode() not in content, path


def test_a_version_carries_the_bill_of_materials_of_its_training(signed: SignedVersion) -> None:
    text = read_sbom(signed.store(), NAME, "1")
    assert text == (signed.package / SBOM_FILE).read_text()
    assert signed.version.tags["sbom"].endswith(f"/{SBOM_FILE}")
    change_code(signed.package)
    assert read_sbom(Store(signed.uri), NAME, "1") == text
    with pytest.raises(UnverifiedVersionError):
        read_sbom(signed.store(), NAME, "1")


def test_commands_end_with_status_2_and_say_why(
    signed: SignedVersion, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    place = ["--tracking_uri", signed.uri, "--registered_name", NAME]
    image, keys = str(signed.folders.images[0]), ["--require_signature", str(signed.other_key.public)]
    assert main(["predict", image, "--version", "1", *place, *keys]) == 2
    assert "by another key" in capsys.readouterr().err
    assert main(["predict", image, "--model", str(signed.folders.models / "three_block"), *keys]) == 2
    assert "expected a registered version where a signature is required" in capsys.readouterr().err
    assert main(["serve", *place, "--require_signature", str(signed.key.private)]) == 2
    assert "a private key, which must not be where versions are only checked" in capsys.readouterr().err
    assert main(["sign", "1", *place]) == 2
    assert "expected a private key, received signing_key=null and no CXR_SIGNING_KEY" in capsys.readouterr().err
    monkeypatch.setenv(KEY_VARIABLE, str(signed.key.private))
    assert main(["sign", "1", *place]) == 0
    assert f"version 1 of {NAME} is signed by key {signed.key.signing.key_id}" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["missing", "public", "no key", "RSA", "curve", "damaged", "password", "no password"])
def test_a_private_key_that_cannot_sign_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    (tmp_path / "text.pem").write_text("text")
    damaged = write_keys(tmp_path, "damaged").private
    damaged.write_text(
        "\n".join(line[:20] for line in damaged.read_text().splitlines()) + "\n-----END PRIVATE KEY-----"
    )
    encrypted = write_keys(tmp_path, "encrypted", password="right").private
    cases: dict[str, tuple[Path, type[CxrError], str]] = {
        "missing": (tmp_path / "none.pem", MissingInputError, "No such file"),
        "public": (write_keys(tmp_path, "public").public, ParameterError, "without one; make one with `openssl"),
        "no key": (tmp_path / "text.pem", ParameterError, "without one"),
        "RSA": (write_rsa_keys(tmp_path, "rsa").private, ParameterError, "with a key of another kind"),
        "curve": (write_keys(tmp_path, "k", curve=ec.SECP256K1()).private, ParameterError, "the curve secp256k1"),
        "damaged": (damaged, ParameterError, "restore it, or make one|without one"),
        "password": (encrypted, ParameterError, f"check {PASSWORD_VARIABLE}"),
        "no password": (encrypted, ParameterError, f"in {PASSWORD_VARIABLE}, received none"),
    }
    path, kind, sentence = cases[case]
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong" if case == "password" else "")
    with pytest.raises(kind, match=sentence) as refusal:
        SigningKey.read(path)
    assert refusal.value.exit_status == 2
    assert not re.search("[A-Za-z0-9+/]{40}", str(refusal.value).replace(str(tmp_path), "")), "no part of a key"


def test_an_encrypted_key_signs_with_its_password_and_shows_it_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = write_keys(tmp_path, "encrypted", password="a long password")
    monkeypatch.setenv(PASSWORD_VARIABLE, "a long password")
    monkeypatch.setenv(KEY_VARIABLE, str(pair.private))
    key = SigningKey.read(None)
    assert key is not None and "a long password" not in repr(key)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "model.keras").write_bytes(b"network")
    key.sign(tmp_path / "files")
    pair.trusted.check(tmp_path / "files", "version 1 of signed")


@pytest.mark.parametrize("content", ["", "text", "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n"])
def test_a_file_without_public_keys_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.pub").write_text(content)
    with pytest.raises(ParameterError, match=r"expected public keys in PEM, received require_signature="):
        TrustedKeys.read(tmp_path / "keys.pub")
    with pytest.raises(ParameterError, match="with a key of another kind"):
        TrustedKeys.read(write_rsa_keys(tmp_path, "rsa").public)
