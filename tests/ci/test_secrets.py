"""`.ci/secrets` finds a key or a password before it is shared, and lets names of secrets pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.signing_keys import write_keys


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """A repository with the scan and nothing else."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(repository / ".ci" / "secrets", tmp_path / ".ci")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def scan(checkout: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [checkout / ".ci" / "secrets"], capture_output=True, text=True, env=os.environ | {"PATH": path}
    )


def test_a_private_key_and_a_password_are_found_unless_git_ignores_them(checkout: Path) -> None:
    (checkout / "params.yaml").write_text("serve:\n  secret_variable: CXR_WEBHOOK_SECRET\n")
    answer = scan(checkout)
    assert (answer.returncode, answer.stdout) == (0, "no secrets in the files of the repository\n")
    write_keys(checkout, "key")
    (checkout / "settings.py").write_text('password = "correct horse battery"\n')  # pragma: allowlist secret
    answer = scan(checkout)
    assert answer.returncode == 1
    assert "key.pem:1" in answer.stdout and "settings.py:1" in answer.stdout
    assert "remove it from the file and from the history" in answer.stderr
    (checkout / ".gitignore").write_text("*.pem\nsettings.py\n")
    assert scan(checkout).returncode == 0


def test_a_key_among_the_tests_is_found_but_no_password_of_a_server_of_theirs(checkout: Path) -> None:
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_login.py").write_text('password = "only here"\n')  # pragma: allowlist secret
    assert scan(checkout).returncode == 0
    write_keys(checkout / "tests", "key")
    assert "tests/key.pem:1" in scan(checkout).stdout
