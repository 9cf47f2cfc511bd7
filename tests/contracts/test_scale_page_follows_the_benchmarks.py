"""The tables of docs/scale.md are what benchmarks/scale.py works out from the measured figures and params.yaml."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import yaml


@pytest.fixture(scope="module")
def scale(repository):
    spec = importlib.util.spec_from_file_location("scale", repository / "benchmarks" / "scale.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale"]


@pytest.fixture
def params(repository):
    return yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cost(scale):
    return scale.measured(scale.MEASURED.read_text(encoding="utf-8"))


def needs(scale, params, cost, images):
    return {row.what: row.need(images) for table in scale.tables(params, cost) for row in table.rows}


def test_the_page_holds_what_the_script_writes(scale, params, cost):
    written = scale.PAGE.read_text(encoding="utf-8")
    assert scale.page(written, params, cost) == written, "run `python benchmarks/scale.py`"


def test_near_pairs_grow_with_the_square_and_the_rest_in_proportion(scale, params, cost):
    once, twice = (needs(scale, params, cost, images) for images in (50_000, 100_000))
    squares = {what for what in once if twice[what] == pytest.approx(4 * once[what])}
    assert squares == {"validate: compare near pairs, on one core"}
    others = {"validate: find near hashes, on one core", "evaluate: intervals"}
    assert all(twice[what] == pytest.approx(2 * once[what]) for what in set(once) - squares - others)


def test_near_hashes_are_found_in_far_less_time_than_the_square(scale, params, cost):
    find = "validate: find near hashes, on one core"
    few, many = (needs(scale, params, cost, images)[find] for images in (100_000, 10_000_000))
    assert 100 * few < many < 1000 * few


def test_intervals_take_a_block_and_what_an_image_takes(scale, params, cost):
    few, some, many = (needs(scale, params, cost, images)["evaluate: intervals"] for images in (0, 1_000, 2_000))
    assert few == pytest.approx(cost["evaluate, a block of replicates"] / scale.GIGABYTE)
    assert many - some == pytest.approx(some - few)


def test_what_exceeds_a_limit_is_named_until_the_limit_is_raised(scale, params, cost):
    slow = "preprocess s0_clahe_bilateral"
    assert slow in scale.beyond(params, cost, 10_000_000)
    params["containers"]["resources"]["preprocess"] = {"cpu": "64", "memory": "4Gi", "hours": 48}
    assert slow not in scale.beyond(params, cost, 10_000_000)


def test_another_seed_costs_what_its_network_costs(scale, params, cost):
    params["models"]["again"] = {**params["models"]["shallow"], "seed": 1}
    hours = needs(scale, params, cost, 100_000)
    assert hours["train again: one epoch"] == hours["train shallow: one epoch"] > 0
    assert hours["evaluate again"] == hours["evaluate shallow"] > 0


@pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("2", 2.0), ("1.5Gi", 1.5 * 2**30), ("3G", 3e9)])
def test_amounts_are_read_as_kubernetes_means_them(scale, text, number):
    assert scale.quantity(text) == number


def test_copies_are_counted_as_the_graph_reads_the_images(scale, params, repository):
    stages = yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    each = {"${recipes}": params["recipes"], "${models}": params["models"]}
    times = {name: len(each.get(stage.get("foreach"), [1])) for name, stage in stages.items()}
    reading = {name for name, stage in stages.items() if "data" in stage.get("do", stage)["deps"]}
    assert scale.readers(list(params["models"]), list(params["recipes"])) == {name: times[name] for name in reading}


def test_a_page_without_the_measurements_is_refused(scale):
    with pytest.raises(SystemExit, match="make benchmarks"):
        scale.measured("# Benchmarks\n\n## `preprocessing.py`\n")
