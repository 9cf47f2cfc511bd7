"""The tables of docs/scale.md are what benchmarks/scale.py works out from the measured figures and params.yaml."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import yaml

ON_ROWS = (
    "validate: rows, checks and reports, on one core",
    "validate: rows of the manifest",
    "resplit, on one core",
    "resplit: rows of the split",
)


@pytest.fixture(scope="module")
def scale(repository):
    spec = importlib.util.spec_from_file_location("scale", repository / "benchmarks" / "scale.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module  # dataclasses look for their module there
    sys.path.insert(0, str(repository / "benchmarks"))  # as for a script
    spec.loader.exec_module(module)
    yield module
    sys.path.pop(0)
    del sys.modules["scale"]


@pytest.fixture(scope="module")
def row_figures(scale):
    return sys.modules[scale.read_rows.__module__]


@pytest.fixture
def params(repository):
    return yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cost(scale):
    return scale.measured(scale.MEASURED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def figures(scale):
    return scale.read_rows(scale.PAGE.read_text(encoding="utf-8"))


def needs(scale, params, cost, figures, images):
    return {row.what: row.need(images) for table in scale.tables(params, cost, figures) for row in table.rows}


def test_the_page_holds_what_the_script_writes(scale, params, cost):
    written = scale.PAGE.read_text(encoding="utf-8")
    assert scale.page(written, params, cost) == written, "run `python benchmarks/scale.py`"


def test_near_pairs_grow_with_the_square_and_the_rest_in_proportion(scale, params, cost, figures):
    once, twice = (needs(scale, params, cost, figures, images) for images in (50_000, 100_000))
    squares = {what for what in once if twice[what] == pytest.approx(4 * once[what])}
    assert squares == {"validate: compare near pairs"}
    others = {"validate: find near hashes, on one core", "evaluate: intervals", *ON_ROWS}
    assert all(twice[what] == pytest.approx(2 * once[what]) for what in set(once) - squares - others)


def test_work_on_rows_takes_what_was_measured_and_grows_in_between_and_beyond(scale, params, cost):
    figures = {
        ("validate", "checks"): {1_000_000: (1800.0, 500.0), 3_000_000: (3600.0, 900.0)},
        ("validate", "report"): {1_000_000: (1800.0, 700.0), 3_000_000: (3600.0, 800.0)},
        ("resplit", "write"): {1_000_000: (360.0, 100.0), 3_000_000: (360.0, 300.0)},
    }
    hours, gigabytes, _, of_resplit = ON_ROWS
    two, three, five = (needs(scale, params, cost, figures, 1_000_000 * size) for size in (2, 3, 5))
    assert [need[hours] for need in (two, three, five)] == pytest.approx([1.5, 2.0, 3.0])
    assert [need[gigabytes] for need in (two, three, five)] == pytest.approx([0.8, 0.9, 1.1])
    assert [need[of_resplit] for need in (two, three, five)] == pytest.approx([0.2, 0.3, 0.5])


def test_figures_of_one_number_of_rows_keep_those_of_the_others(scale, row_figures):
    page = f"before\n\n{row_figures.ROWS_BEGIN}\n\n{row_figures.ROWS_END}\n\nafter\n"
    page = row_figures.write_rows(
        page, 1_000, {("validate", "checks"): (0.5, 1234.0), ("resplit", "write"): (9.0, 7.0)}
    )
    page = row_figures.write_rows(page, 2_000_000, {("validate", "checks"): (1500.25, 2.0)})
    assert scale.read_rows(page) == {
        ("validate", "checks"): {1_000: (0.5, 1234.0), 2_000_000: (1500.2, 2.0)},
        ("resplit", "write"): {1_000: (9.0, 7.0)},
    }
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    with pytest.raises(SystemExit, match=r"manifest_rows\.py --write"):
        row_figures.rows_of_step(scale.read_rows(page), "resplit")


def test_near_hashes_are_found_in_far_less_time_than_the_square(scale, params, cost, figures):
    find = "validate: find near hashes, on one core"
    few, many = (needs(scale, params, cost, figures, images)[find] for images in (100_000, 10_000_000))
    assert 100 * few < many < 1000 * few


def test_intervals_take_a_block_and_what_an_image_takes(scale, params, cost, figures):
    few, some, many = (
        needs(scale, params, cost, figures, images)["evaluate: intervals"] for images in (0, 1_000, 2_000)
    )
    assert few == pytest.approx(cost["evaluate, a block of replicates"] / scale.GIGABYTE)
    assert many - some == pytest.approx(some - few)


def test_each_of_the_pods_has_its_part_of_the_images_and_as_many_cores(scale, params, cost, figures):
    slow = "preprocess s0_clahe_bilateral"
    params["containers"]["resources"]["preprocess"] = {"cpu": "32", "memory": "4Gi", "hours": 1}
    lines = scale.hours_of_pods(params, cost, figures, 10_000_000)
    (cells,) = [line.strip("| ").split(" | ")[1:] for line in lines if slow in line]
    hours = needs(scale, params, cost, figures, 10_000_000)[slow]
    today, with_32, with_64 = cells[1], cells[3], cells[4]
    assert today == with_32 == f"**{hours / 3 / 32:.1f}**", "beyond the limit of one hour"
    assert with_64 == f"{hours / 3 / 64:.2f}"


def test_what_exceeds_a_limit_is_named_until_the_limit_is_raised(scale, params, cost, figures):
    slow = "preprocess s0_clahe_bilateral"
    assert slow in scale.beyond(params, cost, figures, 10_000_000)
    params["containers"]["resources"]["preprocess"] = {"cpu": "64", "memory": "4Gi", "hours": 48}
    assert slow not in scale.beyond(params, cost, figures, 10_000_000)


def test_another_seed_costs_what_its_network_costs(scale, params, cost, figures):
    params["models"]["again"] = {**params["models"]["shallow"], "seed": 1}
    hours = needs(scale, params, cost, figures, 100_000)
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
