"""The step validate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from cxr.data.checks.rules import list_checks
from cxr.data.dataset import DatasetCard
from cxr.data.manifest.builder import STATUSES
from cxr.errors import DataError, MissingInputError, ParameterError
from cxr.images.problems import TRAINING_PROBLEMS
from cxr.steps import validate
from cxr.steps.validate import Validate
from cxr.tracking.store import Store
from support import bad_images
from support.dataset_validation import CHECK_BOUNDS
from support.loopback import MlflowServer, free_port


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def write_data(folder: Path) -> Path:
    """24 sound images of 24 patients."""
    for label in ("NORMAL", "PNEUMONIA"):
        (folder / "train" / label).mkdir(parents=True)
    for number in range(12):
        bad_images.sound(folder / "train" / "NORMAL" / f"IM-{number:04d}-0001.jpeg", number)
        bad_images.sound(folder / "train" / "PNEUMONIA" / f"person{number}_virus_1.jpeg", 100 + number)
    return folder


def run(data: Path, **values: object) -> Path:
    """Validate a folder; returns the folder of all artifacts."""
    artifacts = data.parent / "artifacts"
    folders = {
        "data": data,
        "manifest": artifacts / "manifest",
        "report": artifacts / "data_report",
        "baseline": artifacts / "baseline",
        "rejected": artifacts / "rejected",
        "cache": artifacts / "cache",
    }
    Validate.build(folders | values).execute()
    return artifacts


def checks(folder: Path) -> dict[str, dict[str, object]]:
    return {check["name"]: check for check in json.loads((folder / "checks.json").read_text("utf-8"))["checks"]}


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images with a card and a broken one, and the artifacts of their validation; read only, copy to change."""
    root = tmp_path_factory.mktemp("accepted")
    data = write_data(root / "data")
    DatasetCard("tiny", "patients", "folder", 24, 1, "CC0").write(data)
    bad_images.truncated(data / "train" / "NORMAL" / "IM-0900-0001.jpeg")
    run(data)
    return root


@pytest.fixture
def validated(accepted: Path, tmp_path: Path) -> Path:
    """A copy of the accepted data, with the artifacts beside it."""
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    return tmp_path / "data"


def test_accepted_data_get_manifest_reports_and_baseline(accepted: Path) -> None:
    artifacts = accepted / "artifacts"
    assert sorted(path.name for path in (artifacts / "manifest").iterdir()) == [
        "dataset.json",
        "manifest.parquet",
        "quarantine.csv",
        "summary.json",
    ]
    summary = json.loads((artifacts / "manifest" / "summary.json").read_text("utf-8"))
    assert (summary["files"], summary["accepted"], summary["patients"]) == (25, 24, 24)
    assert summary["labels"] == {"NORMAL": 12, "PNEUMONIA": 12}
    assert summary["left_out"] == ["train/NORMAL/IM-0900-0001.jpeg"]
    assert len(summary["digest"]) == 64
    quarantine = pd.read_csv(artifacts / "manifest" / "quarantine.csv")
    assert quarantine[["path", "problem"]].values.tolist() == [["train/NORMAL/IM-0900-0001.jpeg", "truncated"]]
    assert DatasetCard.read(artifacts / "manifest").name == "tiny"
    assert (artifacts / "data_report" / "data_docs" / "index.html").is_file()
    assert (artifacts / "data_report" / "exploration.html").is_file()
    outcomes = checks(artifacts / "data_report")
    assert outcomes["complete"]["outcome"] == "warning"
    assert outcomes["decodable"]["paths"] == ["train/NORMAL/IM-0900-0001.jpeg"]
    assert (artifacts / "baseline" / "patients" / "sample.parquet").is_file()
    assert not (artifacts / "rejected").exists()


def test_rejected_data_leave_the_reports_and_no_manifest(data: Path) -> None:
    shutil.copy(
        data / "train" / "NORMAL" / "IM-0003-0001.jpeg",
        data / "train" / "PNEUMONIA" / "person900_virus_1.jpeg",
    )
    with pytest.raises(DataError) as error:
        run(data)
    message = str(error.value)
    assert "1 critical check:" in message
    assert "labels_of_picture: No image has both labels: expected at most 1 label" in message
    assert "train/NORMAL/IM-0003-0001.jpeg" in message
    assert "train/PNEUMONIA/person900_virus_1.jpeg" in message
    artifacts = data.parent / "artifacts"
    assert sorted(path.name for path in artifacts.iterdir()) == ["cache", "rejected"]
    assert str(artifacts / "rejected" / "exploration.html") in message
    assert {"exploration.html", "data_docs", "checks.json", "quarantine.csv"} <= {
        path.name for path in (artifacts / "rejected").iterdir()
    }
    (data / "train" / "PNEUMONIA" / "person900_virus_1.jpeg").unlink()
    run(data)
    assert not (artifacts / "rejected").exists()


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = MlflowServer(tmp_path_factory.mktemp("server")).start()
    yield server.uri
    server.kill()


@pytest.fixture
def contradictory_data(data: Path) -> Path:
    return contradict(data)


def contradict(data: Path) -> Path:
    """Give the same image both labels."""
    source = data / "train" / "NORMAL" / "IM-0003-0001.jpeg"
    shutil.copy(source, data / "train" / "PNEUMONIA" / "person900_virus_1.jpeg")
    return data


@dataclass(frozen=True)
class Rejections:
    """What was said and logged when the same data were rejected again and again.

    Attributes:
        data: the data folder.
        messages: text of each error.
        runs: after each rejection, identifier and status of the runs in the store.
    """

    data: Path
    messages: list[str]
    runs: list[list[tuple[str, str]]]


@pytest.fixture(scope="module")
def rejections(tmp_path_factory: pytest.TempPathFactory, tracking_uri: str) -> Rejections:
    """Three rejections. Before the last one, the upload of the reports looks as if it had been cut off."""
    data = contradict(write_data(tmp_path_factory.mktemp("rejected") / "data"))
    result = Rejections(data, [], [])
    client = Store(tracking_uri).connect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PIPELINE_RUN", "5d1c2b9a")
        for number in range(3):
            if number == 2:
                client.update_run(result.runs[0][0][0], status="RUNNING")
            with pytest.raises(DataError) as error:
                run(data, tracking_uri=tracking_uri, experiment="lungs")
            result.messages.append(str(error.value))
            experiment = client.get_experiment_by_name("lungs: rejected data")
            runs = client.search_runs([experiment.experiment_id])
            result.runs.append([(entry.info.run_id, entry.info.status) for entry in runs])
    return result


def test_reports_of_rejected_data_are_in_mlflow_once_and_the_error_says_where(
    rejections: Rejections, tracking_uri: str
) -> None:
    ((run_id, status),) = rejections.runs[0]
    assert rejections.runs[1] == [(run_id, "FINISHED")] and status == "FINISHED"
    client = Store(tracking_uri).connect()
    entry = client.get_run(run_id)
    page = f"{tracking_uri}/#/experiments/{entry.info.experiment_id}/runs/{run_id}"
    assert all(page in message and "rejected/exploration.html" in message for message in rejections.messages)
    assert {artifact.path for artifact in client.list_artifacts(run_id)} == {
        "exploration.html", "data_docs", "checks.json", "quarantine.csv", "summary.json",
    }  # fmt: skip
    assert client.list_artifacts(run_id, "data_docs")
    assert entry.data.tags["pipeline_run"] == "5d1c2b9a"
    assert "labels_of_picture" in entry.data.tags["mlflow.note.content"]
    assert entry.data.tags["data_digest"] == checks_digest(rejections.data)


def checks_digest(data: Path) -> str:
    content: dict[str, str] = json.loads((data.parent / "artifacts" / "rejected" / "checks.json").read_text("utf-8"))
    return content["digest"]


def test_reports_whose_upload_was_cut_off_are_logged_into_the_same_run(rejections: Rejections) -> None:
    assert rejections.runs[2] == rejections.runs[0]


def test_a_store_that_fails_leaves_the_rejection_as_the_error(
    contradictory_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError, match="rejected by 1 critical check") as error:
        run(contradictory_data, tracking_uri=f"http://127.0.0.1:{free_port()}")
    assert error.value.exit_status == 1
    assert "the reports of the rejected data are not in MLflow" in caplog.text
    assert "MLflow" not in str(error.value)


def test_a_local_store_gets_no_reports_of_rejected_data(contradictory_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(contradictory_data, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.exhaustive  # test_images_agree.py validates with a server where MLflow is not installed
def test_accepting_data_imports_no_mlflow(data: Path, tracking_uri: str) -> None:
    arguments = {name: str(data.parent / name) for name in ("manifest", "report", "baseline", "rejected", "cache")}
    values = {"data": str(data), **arguments, "tracking_uri": tracking_uri}
    code = (
        "import sys; from cxr.steps.validate import Validate; "
        f"Validate.build({values!r}).execute(); sys.exit('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_kind_of_bad_file_is_named_with_its_reason(data: Path) -> None:
    expected = bad_images.write_bad_images(data / "train" / "PNEUMONIA")
    with pytest.raises(DataError, match="left_out"):
        run(data)
    table = pd.read_csv(data.parent / "artifacts" / "rejected" / "quarantine.csv")
    problems = {Path(path).name: problem for path, problem in zip(table["path"], table["problem"], strict=True)}
    assert problems == {name: problem for name, problem in expected.items() if problem != "colour"}
    assert table["detail"].notna().all()
    listed_paths = checks(data.parent / "artifacts" / "rejected")["grey_content"]["paths"]
    coloured = [f"train/PNEUMONIA/{name}" for name, problem in expected.items() if problem == "colour"]
    assert listed_paths == coloured


def test_drift_is_reported_until_a_person_accepts_it(validated: Path) -> None:
    data, artifacts = validated, validated.parent / "artifacts"
    accepted = (artifacts / "baseline" / "patients" / "accepted.json").read_text("utf-8")
    for number, path in enumerate(sorted((data / "train" / "NORMAL").iterdir())):
        path.write_bytes(bad_images.jpeg(bad_images.draw_image(number) // 4))
    run(data)
    assert checks(artifacts / "data_report")["drift"]["outcome"] == "warning"
    assert (artifacts / "baseline" / "patients" / "accepted.json").read_text("utf-8") == accepted
    run(data, accept_drift=True)
    run(data)
    assert checks(artifacts / "data_report")["drift"]["outcome"] == "passed"


def test_the_manifest_depends_on_the_data_alone(validated: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (artifacts / "manifest").iterdir()}

    artifacts = validated.parent / "artifacts"
    first_contents = contents()
    run(validated, severity={"copies": "off"}, workers=1, drift_distance=0.5)
    assert contents() == first_contents


def test_wrong_parameters_are_listed_together(data: Path) -> None:
    with pytest.raises(ParameterError) as error:
        run(data, policy={"cmyc": "refuse"}, severity={"drift": "fatal"}, min_side=0, speed=3)
    assert len(error.value.problems) == 4
    assert not (data.parent / "artifacts").exists()


def test_shares_must_be_in_order(data: Path) -> None:
    with pytest.raises(ParameterError, match="min_pneumonia_share at most max_pneumonia_share"):
        run(data, min_pneumonia_share=0.8, max_pneumonia_share=0.2)


def test_a_missing_data_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="data"):
        run(tmp_path / "data")


def test_the_step_knows_every_problem_action_and_check() -> None:
    assert get_args(validate.Problem) == tuple(TRAINING_PROBLEMS)
    assert set(get_args(validate.Action)) == set(STATUSES)
    assert get_args(validate.CheckName) == tuple(check.name for check in list_checks(CHECK_BOUNDS, None))


def test_importing_the_step_imports_no_heavy_library() -> None:
    heavy = "{'pandas', 'numpy', 'cv2', 'great_expectations', 'matplotlib', 'sklearn'}"
    code = f"import sys, cxr.steps.validate; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real
def test_full_size_radiographs_pass_and_colour_files_are_listed(real_originals: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(real_originals, tmp_path / "all")
    folder = next((tmp_path / "all").rglob("NORMAL")).parent
    artifacts = run(folder)
    summary = json.loads((artifacts / "manifest" / "summary.json").read_text("utf-8"))
    assert (summary["files"], summary["accepted"]) == (51, 51)
    outcomes = checks(artifacts / "data_report")
    assert outcomes["usual_mode"]["count"] == 6
    assert all("PNEUMONIA" in path for path in outcomes["usual_mode"]["paths"])  # type: ignore[union-attr]
    assert [name for name, check in outcomes.items() if check["outcome"] == "failed"] == []
