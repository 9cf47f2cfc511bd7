# kfp reads annotations as objects: they must not be postponed here.
"""Steps that work on every image run once for each shard, and the task after them collects what the shards wrote."""

import json
from pathlib import Path

import pytest
import yaml

from cxr.cli.container import ContainerTask, linked_folders
from cxr.errors import ParameterError
from cxr.kubeflow.container_settings import ContainerSettings
from cxr.kubeflow.pipeline_graph import PipelineGraph
from cxr.kubeflow.pipeline_package import compile_pipeline, compile_runs
from cxr.kubeflow.run_record import task_records
from cxr.lineage.pipeline_tasks import all_succeeded, failed_tasks, read_task_definitions, read_task_statuses
from cxr.steps.train import Train
from support.kubeflow_driver import walk
from support.kubeflow_runs import INSIDE, RunDetails, pod_name

SHARDS = ("1/3", "2/3", "3/3")
CLUSTER = {
    "version": "1f2e3d",
    "secrets": {"s3": "cxr-s3", "mlflow": "cxr-mlflow", "image_pull": "registry"},
    "cache": {"claim": "cxr-cache", "path": "/cache"},
    "images": {"claim": "scans", "path": "/images"},
}


@pytest.fixture
def params(repository, monkeypatch, tmp_path):
    """Writes the values of the repository with changes to the section containers."""
    monkeypatch.chdir(repository)

    def write(**changes) -> Path:
        sections = yaml.safe_load(Path("params.yaml").read_text())
        sections["containers"] |= CLUSTER | changes
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
        return tmp_path / "params.yaml"

    return write


@pytest.fixture
def training(params, tmp_path) -> Path:
    """The training pipeline of one model with three shards."""
    return compile_pipeline("training", params(shards=3), tmp_path / "training.yaml", ["shallow"])


def test_a_step_collects_what_the_tasks_of_all_shards_wrote(training):
    tasks = walk(training)
    for step in ("validate_shard", "reference_shard", "preprocess s1_resize"):
        for shard in SHARDS:
            command = tasks[f"{step} {shard}"].command
            assert command[command.index("--shard") + 1] == shard
    for task, step in (
        ("validate", "validate_shard"),
        ("reference", "reference_shard"),
        ("train shallow", "preprocess s1_resize"),
        ("evaluate shallow", "preprocess s1_resize"),
    ):
        assert {f"{step} {shard}" for shard in SHARDS} <= tasks[task].producers
    assert "preprocess s1_resize" not in tasks
    assert not {"--image_results", "--prepared"} & {*tasks["validate"].command, *tasks["train shallow"].command}


def test_a_task_of_a_shard_gets_what_every_task_gets(training):
    tasks = walk(training)
    shard, whole = tasks["validate_shard 2/3"].pod, tasks["validate"].pod
    for setting in ("securityContext", "imagePullSecret", "imagePullPolicy", "pvcMount", "fieldPathAsEnv"):
        assert shard[setting] == whole[setting]
    graph = yaml.safe_load(training.read_text().split("---")[0])
    executors = graph["deploymentSpec"]["executors"]
    settings = [executors[f"exec-{name}"]["container"] for name in ("validate-shard", "validate")]
    assert settings[0]["resources"] == settings[1]["resources"]
    assert settings[0]["image"] == settings[1]["image"]  # else the libraries could differ, and their results


def test_predictions_of_shards_are_joined_and_every_task_reads_the_volume(params, tmp_path):
    tasks = walk(compile_pipeline("scoring", params(shards=3), tmp_path / "scoring.yaml"), {"images": "/images/new"})
    for label in ("predict", *(f"predict {shard}" for shard in SHARDS)):
        assert tasks[label].command[tasks[label].command.index("--images") + 1] == "/images/new"
        assert tasks[label].pod["pvcMount"][0]["constant"] == "scans"
    assert {f"predict {shard}" for shard in SHARDS} <= tasks["predict"].producers


@pytest.mark.parametrize("pipeline", ["training", "scoring"])
def test_one_shard_is_the_pipeline_without_a_loop(params, tmp_path, pipeline):
    text = compile_pipeline(pipeline, params(shards=1), tmp_path / "one.yaml").read_text()
    assert "parameterIterator" not in text
    assert "shard" not in text.replace("shards", "")
    assert compile_pipeline(pipeline, params(), tmp_path / "auto.yaml").read_text() == text


def test_auto_follows_the_number_of_images(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    sections = yaml.safe_load(Path("params.yaml").read_text())
    pointer = tmp_path / "data.dvc"
    counts = {}
    for images in (20_000, 20_001, 10**7):
        pointer.write_text(f"outs:\n- md5: 108371a2da9df205d36500f182be09f7.dir\n  nfiles: {images}\n  path: data\n")
        sections["containers"]["remote"] = "s3://cxr-dvc"
        counts[images] = PipelineGraph(sections, pointer=pointer).shards
    assert counts == {20_000: 1, 20_001: 2, 10**7: 3}
    sections["containers"]["remote"] = None
    sections["fetch"]["source"] = "s3://images"
    assert PipelineGraph(sections, pointer=pointer).shards == 1


@pytest.mark.parametrize("value", [0, 65, "many", 1.5, True, None])
def test_a_wrong_number_is_reported_with_all_other_errors(value):
    with pytest.raises(ParameterError) as error:
        ContainerSettings.read({"containers": {"shards": value, "hours": -1}})
    assert f"containers.shards to be auto, or a whole number from 1 to 64, received containers.shards={value!r}" in str(
        error.value
    )
    assert "containers.hours" in str(error.value)


def test_more_shards_than_the_record_of_a_run_holds_are_refused(params, tmp_path):
    with pytest.raises(ParameterError, match=r"containers\.shards=10 .*use fewer"):
        compile_runs("training", params(shards=10), tmp_path / "training.yaml", ["shallow"])
    assert not list(tmp_path.glob("training*.yaml"))


def test_the_record_counts_every_shard(params, tmp_path):
    records = {
        count: task_records(compile_pipeline("training", params(shards=count), tmp_path / f"{count}.yaml", ["shallow"]))
        for count in (2, 4)
    }
    assert records[2]["validate-shard"].runs == 2
    assert records[4]["validate-shard"].largest > 1.8 * records[2]["validate-shard"].largest
    assert records[4]["train"].largest > records[2]["train"].largest + 2 * 5000  # an address for each folder


@pytest.mark.parametrize("store", ["", "s3:/", "minio:/"])
def test_a_container_finds_the_folders_of_all_shards(tmp_path, store):
    folders = [tmp_path / f"shard-{number}" for number in range(1, 12)]
    for folder in folders:
        folder.mkdir()
        (folder / "shard.json").write_text(folder.name)
    addresses = [{"uri": f"{store}{folder}"} for folder in folders]
    description = {
        "inputs": {"artifacts": {"prepared": {"artifacts": addresses}, "splits": {"artifacts": [{"uri": "/splits"}]}}},
        "outputs": {"outputFile": str(tmp_path / "out.json")},
    }
    task = ContainerTask.read(json.loads(json.dumps(description)))
    shards = task.folders_of_shards(Train, {"splits": "/splits"})
    if store:
        mount = {"s3:/": "/s3", "minio:/": "/minio"}[store]
        assert shards["prepared.11"] == Path(f"{mount}{folders[10]}")
        return
    with linked_folders(Train, {"splits": "/splits"}, shards) as flags:
        texts = {path.parent.name: path.read_text() for path in Path(flags["prepared"]).glob("*/shard.json")}
    assert texts == {str(number): f"shard-{number}" for number in range(1, 12)}
    assert flags["splits"] == "/splits"


@pytest.fixture
def run(training):
    """Definitions of the training's tasks, and a run of it that has fetched."""
    definitions = read_task_definitions(yaml.safe_load(training.read_text().split("---")[0]))
    details = RunDetails()
    details.task("fetch", "SUCCEEDED")
    key = next(task.groups[2] for task in definitions if task.key == "validate-shard")
    return definitions, details, [f"{INSIDE}.{key}.iteration-iterations({n}:{n}).iteration-item(0)" for n in range(3)]


def status_of(run, key):
    definitions, details, _ = run
    return {status.definition.key: status for status in read_task_statuses(details.to_json(), definitions)}.get(key)


def test_a_step_of_shards_succeeds_with_the_last_shard(run):
    definitions, details, paths = run
    assert status_of(run, "validate-shard") is None
    for number, path in enumerate(paths):
        details.task("validate-shard", "RUNNING", inside=path)
        status = status_of(run, "validate-shard")
        assert (status.name, status.state, status.tries, status.end) == (
            "validate_shard (3 shards)",
            "RUNNING",
            1,
            None,
        )
        details.task("validate-shard", "SUCCEEDED", inside=path)
        assert status_of(run, "validate-shard").state == ("SUCCEEDED" if number == 2 else "RUNNING")
    assert not all_succeeded(read_task_statuses(details.to_json(), definitions), definitions)


def failed_task(run):
    """The only task that failed."""
    definitions, details, _ = run
    (failed,) = failed_tasks(read_task_statuses(details.to_json(), definitions))
    return failed


def test_a_shard_that_fails_fails_the_step_and_is_named_with_its_pod(run):
    _, details, paths = run
    details.task("validate-shard", "SUCCEEDED", tries=("FAILED", "SUCCEEDED"), inside=paths[0])
    details.task("validate-shard", "FAILED", tries=("FAILED", "FAILED"), inside=paths[1])
    details.task("validate-shard", "SUCCEEDED", inside=paths[2])
    failed = failed_task(run)
    assert (failed.name, failed.tries) == ("validate_shard (shard 2 of 3)", 2)
    assert failed.pod == pod_name("retry-system-container-impl", f"{paths[1]}.validate-shard(0).executor(1)")


def test_several_shards_that_fail_are_named_and_the_pod_is_that_of_the_first(run):
    _, details, paths = run
    for item in (2, 0):
        details.task("validate-shard", "FAILED", tries=("FAILED",), inside=paths[item])
    failed = failed_task(run)
    assert (failed.name, failed.tries) == ("validate_shard (shards 1, 3 of 3)", 1)
    assert failed.pod == pod_name("retry-system-container-impl", f"{paths[2]}.validate-shard(0).executor(0)")


def test_a_shard_that_kubeflow_could_not_prepare_is_named_with_the_pod_of_its_driver(run):
    _, details, paths = run
    details.task("validate-shard", "SUCCEEDED", inside=paths[0])
    details.driver("validate-shard", "FAILED", inside=paths[2])
    failed = failed_task(run)
    assert failed.driver_failed and failed.name == "validate_shard (shard 3 of 3)"
    assert failed.pod == pod_name("system-container-driver", f"{paths[2]}.validate-shard-driver(0)")


def test_no_shard_is_named_that_no_node_lists(run):
    definitions, details, paths = run
    details.task("validate-shard", "FAILED", inside=paths[1])
    nodes = [{**node, "child_tasks": []} for node in details.to_json()]
    (failed,) = failed_tasks(read_task_statuses(nodes, definitions))
    assert (failed.name, failed.pod) == ("validate_shard (3 shards)", "")


@pytest.mark.parametrize(("pipeline", "loops"), [("training", 3), ("scoring", 1)])
@pytest.mark.parametrize(("retries", "further"), [(3, 1), (0, None)])
def test_a_shard_is_tried_again_alone(params, tmp_path, pipeline, loops, retries, further):
    """The rule for further tries is on the task inside of the loop: it holds for each shard, and not for the loop."""
    counted = {"count": retries, "seconds": 30, "factor": 2.0, "longest": 60}
    package = compile_pipeline(pipeline, params(shards=3, retries=counted), tmp_path / "package.yaml", ["shallow"])
    graph = yaml.safe_load(package.read_text().split("---")[0])
    groups = [graph["root"]["dag"], *(each["dag"] for each in graph["components"].values() if "dag" in each)]
    loop_tasks = [task for group in groups for task in group["tasks"].values() if "parameterIterator" in task]
    assert len(loop_tasks) == loops and not any("retryPolicy" in loop for loop in loop_tasks)
    for loop in loop_tasks:
        (task,) = graph["components"][loop["componentRef"]["name"]]["dag"]["tasks"].values()
        assert task.get("retryPolicy", {}).get("maxRetryCount") == further
