"""One file of passwords becomes the cluster's Secrets, and a mistake in it becomes a sentence."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from support.kustomize import KUBERNETES, ROOT

SCRIPT = KUBERNETES / "secrets.sh"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["local", "production"])
def test_new_passwords_are_drawn_once_and_kept_to_oneself(name: str, tmp_path: Path) -> None:
    example = (KUBERNETES / "overlays" / name / "secrets.ini.example").read_text(encoding="utf-8")
    file = tmp_path / "secrets.ini"
    (tmp_path / "secrets.ini.example").write_text(example, encoding="utf-8")
    make = [ROOT / "infra" / "new_env.sh", file]
    subprocess.run(make, check=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    drawn = re.findall(r"^[A-Z_]+=(\S{44})$", file.read_text(), re.MULTILINE)
    assert len(drawn) == len(set(drawn)) == len(re.findall(r"^[A-Z_]+=$", example, re.MULTILINE)) > 3
    before = file.read_text()
    assert subprocess.run(make, capture_output=True).returncode == 2
    assert file.read_text() == before


def test_git_passes_over_the_files_with_passwords() -> None:
    for name in ("local", "production"):
        path = f"infra/kubernetes/overlays/{name}/secrets.ini"
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0
    for path in ("infra/terraform/terraform.tfvars", "infra/terraform/terraform.tfstate"):
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0


def test_any_character_of_a_password_arrives(tmp_path: Path) -> None:
    file = tmp_path / "secrets.ini"
    file.write_text('# note\n\n[one]\nPGPASSWORD=it\'s "a": #$\\n {b}=\nEMPTY=""\n[two]\nKEY=true')
    answer = run(file)
    assert answer.returncode == 0, answer.stderr
    first, second = yaml.safe_load_all(answer.stdout)
    assert first["stringData"] == {"PGPASSWORD": 'it\'s "a": #$\\n {b}=', "EMPTY": ""}
    assert (first["kind"], first["metadata"]["name"]) == ("Secret", "one")
    assert second["stringData"] == {"KEY": "true"}
    (only,) = yaml.safe_load_all(run(file, "two").stdout)
    assert only == second


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[one]\nKEY=\n", "expected a value in line 2"),
        ("KEY=value\n", "in line 1"),
        ("[one]\nsecret password\n", "in line 2"),
        ("[One]\nKEY=value\n", "in line 1"),
    ],
)
def test_a_mistake_is_named_by_its_line_and_nothing_is_printed(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "secrets.ini"
    file.write_text(text)
    answer = run(file)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert words in answer.stderr
    assert "password" not in answer.stderr


def test_a_missing_file_or_section_is_named(tmp_path: Path) -> None:
    file = tmp_path / "secrets.ini"
    assert "received FILE=" in run(file).stderr
    file.write_text("[one]\nKEY=value\n")
    answer = run(file, "one", "cxr-s4")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "received NAME=cxr-s4" in answer.stderr
    assert run().returncode == 2
