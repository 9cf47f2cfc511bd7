"""Tasks of a run on a cluster, read from the nodes of Kubeflow's API."""

from __future__ import annotations

import pytest

from cxr.lineage.pipeline_tasks import TaskDefinition, read_task_definitions, read_task_statuses


@pytest.mark.parametrize(
    ("definition", "node", "pod"),
    [
        (TaskDefinition("root", "root", "group", ()), "root-driver", "system-dag-driver-1941995042"),
        (
            TaskDefinition("flip-coin-op", "flip-coin-op", "step", ("root",)),
            "flip-coin-op-driver",
            "system-container-driver-3821465773",
        ),
    ],
)
def test_pods_have_the_names_that_a_real_cluster_gave_them(definition, node, pod):
    """The pods of a run that somebody listed: https://github.com/kubeflow/pipelines/issues/10036."""
    workflow = "tutorial-control-flows-gbjpn"
    details = [
        {"display_name": node, "state": "FAILED", "start_time": "2024-09-10T08:00:00Z"},
        {
            "display_name": workflow,
            "state": "RUNNING",
            "child_tasks": [{"pod_name": f"{workflow}-{pod.rpartition('-')[2]}"}, {"pod_name": f"{workflow}-1"}],
        },
    ]
    (status,) = read_task_statuses(details, [definition])
    assert status.driver_failed and status.pod == f"{workflow}-{pod}"


def test_no_pod_is_named_that_no_node_lists():
    details = [{"display_name": "fetch-driver", "state": "FAILED", "child_tasks": [{"pod_name": "run-1-99"}]}]
    (status,) = read_task_statuses(details, [TaskDefinition("fetch", "fetch", "step", ("root",))])
    assert (status.state, status.pod) == ("FAILED", "")


@pytest.mark.parametrize("pipeline", [{}, {"root": {}}, {"pipeline_spec": {"root": {"dag": {"tasks": {"a": None}}}}}])
def test_what_is_no_pipeline_has_no_tasks(pipeline):
    assert read_task_definitions(pipeline) == ()
