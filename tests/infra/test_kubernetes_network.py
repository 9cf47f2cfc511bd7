"""Who can reach whom, worked out from the network policies as a cluster would."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from cxr.train_job.manifest import POD_LABELS
from support.kustomize import OTHER_PODS, STEP_LABELS, Object, Pod, of_kind, overlay, pods, production_with

INTERNET, PRIVATE, NODE_KEYS = "93.184.216.34", "10.20.30.40", "169.254.169.254"


def matches(selector: Object, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", ()):
        value, operator = labels.get(expression["key"]), expression["operator"]
        assert operator in ("In", "Exists"), operator
        if value is None or (operator == "In" and value not in expression["values"]):
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def peer_fits(peer: Object, policy: Object, other: Pod | str) -> bool:
    if isinstance(other, str):
        block = peer.get("ipBlock")
        address = ipaddress.ip_address(other)
        return bool(block) and (
            address in ipaddress.ip_network(block["cidr"])
            and not any(address in ipaddress.ip_network(block_range) for block_range in block.get("except", ()))
        )
    if "ipBlock" in peer:
        return False
    spaces = peer.get("namespaceSelector")
    names = {"kubernetes.io/metadata.name": other.namespace}
    if not (matches(spaces, names) if spaces is not None else other.namespace == policy["metadata"]["namespace"]):
        return False
    return matches(peer.get("podSelector", {}), other.labels)


def way_is_open(objects: list[Object], pod: Pod, direction: str, other: Pod | str, port: int) -> bool:
    chosen = [
        policy
        for policy in of_kind(objects, "NetworkPolicy")
        if policy["metadata"]["namespace"] == pod.namespace
        and direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], pod.labels)
    ]
    peers, rules = ("to", "egress") if direction == "Egress" else ("from", "ingress")
    return not chosen or any(
        ("ports" not in rule or port in {entry["port"] for entry in rule["ports"]})
        and any(peer_fits(peer, policy, other) for peer in rule[peers])
        for policy in chosen
        for rule in policy["spec"].get(rules, ())
    )


def reaches(objects: list[Object], source: Pod, target: Pod | str, port: int) -> bool:
    inward = isinstance(target, str) or way_is_open(objects, target, "Ingress", source, port)
    return inward and way_is_open(objects, source, "Egress", target, port)


def cast(objects: list[Object], steps_in: str = "cxr") -> dict[str, Pod]:
    """Everybody on the stage, by a short name."""
    short = {pod.owner.partition("/")[2]: pod for pod in pods(objects)}
    short["step"] = Pod("Workflow/cxr-training", steps_in, STEP_LABELS, {})
    short["training-node"] = Pod("TrainJob/shallow", steps_in, POD_LABELS, {})
    for namespace, labels in OTHER_PODS:
        short[namespace] = Pod(namespace, namespace, labels, {})
    short["stranger"] = Pod("stranger", "default", {"app": "stranger"}, {})
    return short


PORTS = {"mlflow": 5000, "postgres": 5432, "s3": 8333, "champion": 8080}
OPEN = {
    "local": {
        ("step", "mlflow"),
        ("step", "s3"),
        ("training-node", "mlflow"),
        ("mlflow", "postgres"),
        ("mlflow", "s3"),
        ("mlflow-upgrade", "postgres"),
        ("buckets", "s3"),
    },
    "production": {
        ("step", "mlflow"),
        ("training-node", "mlflow"),
        ("champion", "mlflow"),
        ("traefik", "mlflow"),
        ("monitoring", "champion"),
    },
}


@pytest.mark.parametrize("name", ["local", "production"])
def test_servers_are_reached_by_those_who_need_them_and_nobody_else(name: str) -> None:
    objects = overlay(name)
    stage = cast(objects)
    open_ways = {
        (source, target)
        for source, pod in stage.items()
        for target, port in PORTS.items()
        if target in stage and source != target and reaches(objects, pod, stage[target], port)
    }
    assert open_ways == OPEN[name]
    # No other port of theirs is open: the store's other parts ask for no key.
    for target in set(PORTS) & set(stage):
        assert not any(reaches(objects, pod, stage[target], 8888) for source, pod in stage.items() if source != target)


def test_steps_of_a_kubeflow_pipelines_of_its_own_reach_the_servers_too() -> None:
    objects = overlay("local") + overlay("standalone")
    stage = cast(objects, steps_in="kubeflow")
    reached = {
        target
        for target in ("mlflow", "s3", "postgres")
        if reaches(objects, stage["step"], stage[target], PORTS[target])
    }
    assert reached == {"mlflow", "s3"}
    assert reaches(objects, stage["training-node"], stage["mlflow"], PORTS["mlflow"])
    assert reaches(objects, stage["step"], stage["kubeflow"], 8887)


@pytest.mark.parametrize("name", ["local", "production", "standalone"])
def test_the_nodes_of_a_training_reach_each_other_at_every_port_and_no_step(name: str) -> None:
    objects = overlay("local") + overlay(name)
    stage = cast(objects, steps_in="kubeflow" if name == "standalone" else "cxr")
    node, step = stage["training-node"], stage["step"]
    other = Pod("TrainJob/shallow", node.namespace, node.labels, {})
    assert all(reaches(objects, node, other, port) for port in (1234, 45678))
    assert not reaches(objects, node, step, 1234)
    assert not reaches(objects, step, node, 1234)


def test_the_dicom_node_speaks_with_mlflow_and_the_pacs_alone(tmp_path: Path) -> None:
    objects = production_with(tmp_path, "node")
    stage = cast(objects)
    node, pacs = stage["node"], "192.0.2.7"
    assert way_is_open(objects, node, "Ingress", pacs, 11112) and reaches(objects, node, pacs, 2762)
    assert reaches(objects, node, stage["mlflow"], PORTS["mlflow"])
    assert reaches(objects, node, stage["kube-system"], 53)
    assert [name for name in stage if reaches(objects, stage[name], node, 8766)] == ["monitoring"]
    assert [name for name in stage if reaches(objects, stage[name], node, 11112)] == []
    for address, port in ((INTERNET, 443), (NODE_KEYS, 80), (PRIVATE, 2762), (pacs, 443)):
        assert not reaches(objects, node, address, port), f"{address}:{port}"
    assert not way_is_open(objects, node, "Ingress", PRIVATE, 11112)


@pytest.mark.parametrize("name", ["local", "production"])
def test_a_pod_that_nobody_thought_of_is_cut_off(name: str) -> None:
    objects = overlay(name)
    stage = cast(objects)
    newcomer = Pod("newcomer", "cxr", {"app": "newcomer"}, {})
    for source, pod in stage.items():
        assert not reaches(objects, pod, newcomer, 8080), source
    # The champion's port 8080 answers everybody in its namespace.
    ports = (443, 5000, 5432, 8333)
    assert not [source for source, pod in stage.items() if any(reaches(objects, newcomer, pod, port) for port in ports)]
    assert not reaches(objects, newcomer, INTERNET, 443)


@pytest.mark.parametrize("name", ["local", "production"])
def test_names_are_found_by_all_and_the_way_out_is_narrow(name: str) -> None:
    objects = overlay(name)
    stage = cast(objects)
    outward = set()
    for pod_name in {pod.owner.partition("/")[2] for pod in pods(objects)} | {"step", "training-node"}:
        assert reaches(objects, stage[pod_name], stage["kube-system"], 53), pod_name
        assert not any(reaches(objects, stage[pod_name], NODE_KEYS, port) for port in (80, 443)), pod_name
        assert not any(reaches(objects, stage[pod_name], INTERNET, port) for port in (80, 5000, 8333)), pod_name
        if reaches(objects, stage[pod_name], INTERNET, 443):
            outward.add(pod_name)
    assert outward == {"step", "training-node"} | ({"mlflow"} if name == "production" else set())
    assert reaches(objects, stage["step"], PRIVATE, 6443)
    assert reaches(objects, stage["mlflow"], PRIVATE, 5432) is (name == "production")
    assert not reaches(objects, stage["mlflow"], INTERNET, 5432)


@pytest.mark.parametrize("name", ["local", "production", "standalone"])
def test_every_selector_selects_something(name: str) -> None:
    objects = overlay(name)
    stage = list(cast(overlay("local") + objects, steps_in="kubeflow" if name == "standalone" else "cxr").values())
    spaces = {pod.namespace for pod in stage}
    for policy in of_kind(objects, "NetworkPolicy"):
        own = {"matchLabels": {"kubernetes.io/metadata.name": policy["metadata"]["namespace"]}}
        chosen: list[tuple[Object, Object]] = [(own, policy["spec"]["podSelector"])]
        for rule in [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]:
            for peer in rule.get("to", rule.get("from", ())):
                if "ipBlock" not in peer:
                    chosen.append((peer.get("namespaceSelector", own), peer.get("podSelector", {})))
        for space, selector in chosen:
            within = {namespace for namespace in spaces if matches(space, {"kubernetes.io/metadata.name": namespace})}
            selected = [pod for pod in stage if pod.namespace in within and matches(selector, pod.labels)]
            assert selected, f"{policy['metadata']['name']}: {space} {selector}"


@pytest.mark.parametrize("name", ["local", "production"])
def test_services_and_budgets_select_pods_with_the_ports_they_name(name: str) -> None:
    objects = overlay(name)
    everyone = pods(objects)
    for service in of_kind(objects, "Service"):
        chosen = [pod for pod in everyone if matches({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        assert len(chosen) == 1, service["metadata"]["name"]
        names = {port["name"]: port["containerPort"] for port in chosen[0].spec["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            assert names[port["targetPort"]] == port["port"]
    servers = {pod.owner for pod in everyone if pod.owner.startswith(("Deployment/", "StatefulSet/"))}
    guarded = set()
    for budget in of_kind(objects, "PodDisruptionBudget"):
        guarded |= {pod.owner for pod in everyone if matches(budget["spec"]["selector"], pod.labels)}
    assert guarded == servers
