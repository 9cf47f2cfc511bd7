"""The files that start the server of a team agree: script, image, compose file, settings and pinned packages."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "mlflow" / "entrypoint.sh"
COMPOSE = ROOT / "infra" / "compose.yaml"
EXAMPLE = ROOT / "infra" / ".env.example"
SYSTEM = "/usr/bin:/bin"
WORKING = {
    "PGHOST": "db",
    "PGDATABASE": "mlflow",
    "PGUSER": "mlflow",
    "PGPASSWORD": "p%w:/@",
    "MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/team",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example.org,localhost:*",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "long enough for one",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "sixteen letters or more",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "A" * 43 + "=",
}


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """Folder with programs `mlflow` and `python` that say how they were started; `mlflow` shows its login settings."""
    folder = tmp_path / "programs"
    folder.mkdir()
    said = '#!/bin/sh\nprintf "%s\\n" "$@"\n'
    shown = 'cat "$MLFLOW_AUTH_CONFIG_PATH"\necho "password=$PGPASSWORD"\necho "PYTHONPATH=$PYTHONPATH"\n'
    for name, text in (("mlflow", said + shown), ("python", said)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def start(environment: dict[str, str], programs: Path | str = "", *words: str) -> subprocess.CompletedProcess[str]:
    path = f"{programs}{os.pathsep}{SYSTEM}" if programs else SYSTEM
    full = {"PATH": path, "TMPDIR": str(Path(programs).parent) if programs else "/tmp", **environment}
    return subprocess.run([ENTRYPOINT, *words], env=full, capture_output=True, text=True)


def settings(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", text, re.MULTILINE))


def services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"])


def filled_in(value: object, known: dict[str, str]) -> str:
    """A value of the compose file with ${NAME}, ${NAME:-default} and ${NAME:?message} replaced."""
    return re.sub(r"\$\{(\w+)(?::[-?][^}]*)?\}", lambda match: known[match[1]], str(value))


def test_all_that_is_missing_is_said_at_once() -> None:
    answer = start({})
    assert answer.returncode == 2
    assert {name for name in WORKING if f"expected {name} " in answer.stderr} == set(WORKING) - {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "*"),
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "localhost,*"),
        ("MLFLOW_AUTH_ADMIN_PASSWORD", "short"),
        ("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "not a key"),
        ("MLFLOW_ARTIFACTS_DESTINATION", "/srv/files"),
        ("MLFLOW_AUTH_DEFAULT_PERMISSION", "ADMIN"),
        ("MLFLOW_WORKERS", "0"),
        ("PGHOST", "db/other"),
        ("WAIT_SECONDS", "15m"),
        ("SIGNED_DOWNLOADS", "no"),
        ("AWS_SECRET_ACCESS_KEY", ""),
    ],
)
def test_a_value_that_would_be_unsafe_or_fail_later_is_refused(recorder: Path, name: str, value: str) -> None:
    answer = start({**WORKING, name: value}, recorder)
    assert answer.returncode == 2
    assert name in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    if "PASSWORD" in name or "KEY" in name:
        assert not value or value not in answer.stderr


def test_the_server_starts_with_login_hosts_and_both_stores(recorder: Path) -> None:
    answer = start(WORKING, recorder)
    assert answer.returncode == 0, answer.stderr
    said = answer.stdout
    for words in (
        "--app-name\nbasic-auth",
        "--backend-store-uri\npostgresql+psycopg2://mlflow@db:5432/mlflow",
        "--serve-artifacts\n--artifacts-destination\ns3://bucket/team",
        "--allowed-hosts\nmlflow.example.org,localhost:*",
        "database_uri = postgresql+psycopg2://mlflow@db:5432/mlflow",
        "default_permission = READ",
        "password=p%w:/@",
    ):
        assert words in said


def test_the_tables_are_there_before_the_server_starts(recorder: Path) -> None:
    said = start(WORKING, recorder).stdout
    tables = f"{ENTRYPOINT.parent}/server/stores.py\ntables\npostgresql+psycopg2://mlflow@db:5432/mlflow\n"
    assert said.index(tables) < said.index("--app-name")
    (recorder / "python").write_text("#!/bin/sh\nexit 1\n")
    answer = start(WORKING, recorder)
    assert (answer.returncode, answer.stdout) == (1, "")


@pytest.mark.parametrize(("value", "folders"), [("", 1), ("false", 1), ("true", 0)])
def test_files_go_through_the_server_unless_clients_reach_the_store(recorder: Path, value: str, folders: int) -> None:
    answer = start({**WORKING, "SIGNED_DOWNLOADS": value}, recorder)
    assert answer.stdout.count(f"PYTHONPATH={ENTRYPOINT.parent}/server\n") == folders


@pytest.mark.parametrize(
    ("words", "message"),
    [((), "received no name"), (("good", "s3://bad"), "received NAME=s3://bad"), (("Bad",), "received NAME=Bad")],
)
def test_buckets_need_names(words: tuple[str, ...], message: str) -> None:
    answer = start({}, "", "buckets", *words)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_secret_may_come_from_a_file(recorder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    without = {name: value for name, value in WORKING.items() if name != "PGPASSWORD"}
    answer = start({**without, "PGPASSWORD_FILE": str(tmp_path / "secret")}, recorder)
    assert "password=from a file" in answer.stdout
    both = start({**WORKING, "PGPASSWORD_FILE": str(tmp_path / "secret")}, recorder)
    assert (both.returncode, both.stderr.count("received both")) == (2, 1)
    absent = start({**without, "PGPASSWORD_FILE": str(tmp_path / "absent")}, recorder)
    assert absent.returncode == 2
    assert "expected a readable file, received PGPASSWORD_FILE=" in absent.stderr


def test_the_settings_of_a_new_machine_start_the_server(recorder: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings"
    subprocess.run([ROOT / "infra" / "new_env.sh", file], check=True)
    known = settings(file.read_text())
    assert set(known) == set(settings(EXAMPLE.read_text()))
    assert all(known.values())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    variables = {name: filled_in(value, known) for name, value in services()["mlflow"]["environment"].items()}
    answer = start(variables, recorder)
    assert answer.returncode == 0, answer.stderr
    command, name = services()["bucket"]["command"]
    assert (command, f"s3://{filled_in(name, known)}") == ("buckets", variables["MLFLOW_ARTIFACTS_DESTINATION"])
    again = subprocess.run([ROOT / "infra" / "new_env.sh", file], capture_output=True, text=True)
    assert again.returncode == 2
    assert settings(file.read_text()) == known


def test_every_setting_is_used_and_every_variable_has_one() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))
    assert used == set(settings(EXAMPLE.read_text(encoding="utf-8")))


def test_no_secret_has_a_default() -> None:
    known = settings(EXAMPLE.read_text(encoding="utf-8"))
    secrets = {name for name in known if re.search("PASSWORD|SECRET", name)}
    assert secrets >= {"PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD"}
    assert {known[name] for name in secrets} == {""}
    assert not re.search(r"\$\{\w*(PASSWORD|SECRET)\w*:-", COMPOSE.read_text(encoding="utf-8"))


def test_services_are_pinned_bound_to_loopback_and_started_in_order() -> None:
    all_services = services()
    assert set(all_services) == {"postgres", "s3", "bucket", "mlflow"}
    for name, service in all_services.items():
        image = service["image"]
        assert "build" in service or re.search(r":\d+\.\d+", image), f"{name}: {image}"
        assert service["read_only"] is True
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for other, terms in service.get("depends_on", {}).items():
            once = all_services[other].get("restart") == "no"
            assert terms["condition"] == ("service_completed_successfully" if once else "service_healthy")
            assert once or "test" in all_services[other]["healthcheck"]
    volumes = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["volumes"]
    assert {
        volume.partition(":")[0] for service in all_services.values() for volume in service.get("volumes", [])
    } == set(volumes)


def test_the_image_gets_only_files_that_exist_and_runs_as_nobody_special() -> None:
    text = (ROOT / "mlflow" / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?:--\S+ )*(\S+) ", text, re.MULTILINE)
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
    sent = (ROOT / "mlflow" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert sent == ["*", *(f"!{name}" for name in copied), "**/__pycache__"]
    # The script finds what is beside it in the repository also beside it in the image.
    targets = dict(re.findall(r"^COPY (?:--\S+ )*(mlflow/\S+) (\S+)$", text, re.MULTILINE))
    assert {Path(target).relative_to("/opt") for target in targets.values()} == {Path(name) for name in targets}
    assert f'ENTRYPOINT ["{targets["mlflow/entrypoint.sh"]}"]' in text
    assert re.search(r"^FROM python:\d+\.\d+\.\d+-", text, re.MULTILINE)
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    assert "/health" in text


def test_server_and_pipeline_have_the_same_versions() -> None:
    server, run = (pins(ROOT / "requirements" / f"{name}.txt") for name in ("server", "run"))
    assert {"mlflow", "psycopg2-binary", "flask-wtf", "boto3"} <= set(server)
    assert "tensorflow" not in server
    shared = set(server) & set(run)
    assert {"mlflow", "boto3", "sqlalchemy"} <= shared
    assert {name: server[name] for name in shared} == {name: run[name] for name in shared}


def test_scripts_pass_shellcheck() -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program is not None
    infra = ROOT / "infra"
    scripts = [ENTRYPOINT, infra / "new_env.sh", infra / "kubernetes" / "secrets.sh"]
    scripts += [ROOT / ".ci" / "run", ROOT / ".ci" / "containers"]
    answer = subprocess.run([program, *scripts], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))
