"""Write the tables of docs/scale.md: how the steps grow, and what the pipeline needs for more images.

`python benchmarks/scale.py` writes the tables that are computed from the measured cost of one image, and
`python benchmarks/scale.py --images 250000` prints them for another number of images. The figures per image are read
from docs/benchmarks.md, which `make benchmarks` writes. Epochs, recipes and limits are read from params.yaml.
The work on the rows of a manifest is that of the table which `benchmarks/manifest_rows.py --write` writes to the page.
`python benchmarks/scale.py --run 1000 10000 100000` runs the steps on so many small images and writes what they used.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from page_parts import replace_part, show_amount
from row_figures import RowFigures, read_rows, rows_of_step

from cxr.data.fetching.kermany import COUNTS, KAGGLE_BYTES
from cxr.data.manifest.fine_structure import BYTES_ON_DISK
from cxr.data.manifest.hash_neighbours import count_comparisons, divide_hash
from cxr.images.recipes import recipe_named
from cxr.kubeflow.components import component_images
from cxr.kubeflow.container_settings import MAX_AUTO_SHARDS, ContainerSettings
from cxr.steps import load_step
from cxr.steps.base import Input

PROJECT = Path(__file__).resolve().parents[1]
PAGE, MEASURED = PROJECT / "docs" / "scale.md", PROJECT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin: written by benchmarks/scale.py -->", "<!-- end -->"
RUN_BEGIN, RUN_END = "<!-- begin: written by benchmarks/scale.py --run -->", "<!-- end of the run -->"
PUBLIC = sum(COUNTS.values())
SIZES = (PUBLIC, 100_000, 10_000_000)
UNITS = {"ns": 1e-9, "ms": 1e-3, "of a million": 1e-6, "bytes": 1.0, "MiB": 2.0**20}
QUANTITY = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
GIGABYTE = 1e9
LIMIT = "limit"
INSPECT = "validate: inspect every image"
CORES = (8, 32, 64)
"""Cores of a pod for which the hours of a shard are shown."""
READS = {"validate": 2, "reference": 1}
"""How often a step reads an image by address at most, where no copies are kept; each recipe reads it once."""
SECTIONS = ("per_image", "duplicates", "intervals")
"""Scripts that print costs in lines of what, how much and unit."""


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        what: step and work.
        need: computes the amount from the number of images, in the unit of the table.
        limit: what params.yaml allows, or what one core reaches; None if it is not known.
    """

    what: str
    need: Callable[[float], float]
    limit: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of needs in one unit.

    Attributes:
        title: what is needed, and its unit.
        limits: heading of the last column.
        rows: lines of the table.
    """

    title: str
    limits: str
    rows: list[Row]


def measured(page: str) -> dict[str, float]:
    """Read the measured cost of one image.

    Args:
        page: text of docs/benchmarks.md.

    Returns:
        Cost by kind of work, in core seconds, bytes or as a share; and by recipe, in core seconds.

    Raises:
        SystemExit: if a section is missing.
    """
    sections = {match[1]: match[2] for match in re.finditer(r"## `(\w+)\.py`(.*?)(?=\n## |\Z)", page, re.DOTALL)}
    absent = {*SECTIONS, "preprocessing"} - set(sections)
    if absent:
        raise SystemExit(f"expected docs/benchmarks.md with {sorted(absent)}; run `make benchmarks`")
    units = "|".join(UNITS)
    costs = {
        re.sub(r" among .*", "", match[1].strip()): float(match[2].replace(",", "")) * UNITS[match[3]]
        for name in SECTIONS
        for match in re.finditer(rf"^(\w.*?)\s{{2,}}([\d.,]+) ({units})$", sections[name], re.MULTILINE)
    }
    rates = re.finditer(r"^(s\d_\w+)\s+([\d.]+)", sections["preprocessing"], re.MULTILINE)
    return costs | {match[1]: 1 / float(match[2]) for match in rates}


def readers(models: Sequence[str], recipes: Sequence[str]) -> dict[str, int]:
    """Count the tasks of a training without detectors and without shards that read the raw images.

    Args:
        models: models that are trained.
        recipes: recipes that prepare their images.

    Returns:
        Number of tasks by step.
    """
    times = {"preprocess": len(recipes), "train": len(models), "evaluate": len(models)}
    others = ("predict", "train_regions", "evaluate_regions", "validate_shard", "reference_shard")
    times |= dict.fromkeys(others, 0)
    return {
        name: times.get(name, 1)
        for name in component_images()
        if any(isinstance(role, Input) and role.kind == "Dataset" for role in load_step(name).artifacts().values())
        and times.get(name, 1)
    }


def quantity(text: str) -> float:
    """Read an amount as Kubernetes writes it.

    Args:
        text: for example ``500m`` or ``4Gi``; the settings have been checked before.

    Returns:
        The number.
    """
    digits = text.rstrip("mkMGTPi")
    return float(digits) * QUANTITY[text[len(digits) :]]


def tables(params: Mapping[str, Any], cost: Mapping[str, float], figures: RowFigures) -> Iterator[Table]:
    """Compute what each step needs.

    Args:
        params: sections of params.yaml.
        cost: result of :func:`measured`.
        figures: result of :func:`read_rows`.

    Yields:
        The tables.
    """
    containers = ContainerSettings.read(params)
    models: Mapping[str, Any] = params["models"]
    recipes = {name: recipe_named(name, **params["recipes"][name]) for name in params["recipes"]}
    train, _, test = params["resplit"]["ratios"]
    judged = 1 - train

    def hours(name: str, cores: float | None = None) -> float:
        return containers.resources_of(name).hours * (
            quantity(containers.resources_of(name).cpu) if cores is None else cores
        )

    def memory(name: str) -> float:
        return quantity(containers.resources_of(name).memory) / GIGABYTE

    validate, resplit = (rows_of_step(figures, step) for step in ("validate", "resplit"))

    def in_hours(seconds: Callable[[float], float]) -> Callable[[float], float]:
        return lambda n: seconds(n) / 3600

    def linear(seconds: float) -> Callable[[float], float]:
        return lambda n: n * seconds / 3600

    look, compare = cost["validate, look at an image"], cost["validate, compare two hashes"]
    share, compare_pair = cost["validate, near pairs"], cost["validate, compare a near pair"]
    distance = params["validate"]["near_distance"]
    rows = [
        Row(INSPECT, linear(look), hours("validate")),
        Row(
            "validate: find near hashes, on one core",
            lambda n: count_comparisons(int(n), divide_hash(int(n), distance)) * compare / 3600,
            hours("validate", cores=1),
        ),
        Row(
            "validate: compare near pairs",
            lambda n: n * n / 2 * share * compare_pair / 3600,
            hours("validate"),
        ),
        Row("validate: rows, checks and reports, on one core", in_hours(validate[0]), hours("validate", cores=1)),
        Row("resplit, on one core", in_hours(resplit[0]), hours("resplit", cores=1)),
    ]
    rows += [Row(f"preprocess {name}", linear(cost[name]), hours("preprocess")) for name in recipes]
    for name, entry in models.items():
        epoch = train * cost[f"train {entry['architecture']}"]
        rows.append(Row(f"train {name}: one epoch", linear(epoch)))
        rows.append(
            Row(f"train {name}: at most {entry['epochs']} epochs", linear(entry["epochs"] * epoch), hours("train"))
        )
    for name, entry in models.items():
        predict = cost[f"predict with {entry['architecture']}"]
        seconds = (judged + test) * predict + judged * cost["evaluate, intervals of an image"]
        rows.append(Row(f"evaluate {name}", linear(seconds), hours("evaluate")))
    yield Table("Time, in hours of one core", LIMIT, rows)

    seconds = 3600 * containers.resources_of("train").hours
    yield Table(
        f"Images a second that training needs, for all its epochs in {containers.resources_of('train').hours:g} hours",
        "one core does",
        [
            Row(
                name,
                lambda n, epochs=entry["epochs"]: n * train * epochs / seconds,
                1 / cost[f"train {entry['architecture']}"],
            )
            for name, entry in models.items()
        ],
    )

    yield Table(
        "Memory, in GB",
        LIMIT,
        [
            Row("validate: rows of the manifest", lambda n: validate[1](n) / GIGABYTE, memory("validate")),
            Row("resplit: rows of the split", lambda n: resplit[1](n) / GIGABYTE, memory("resplit")),
            Row(
                "evaluate: intervals",
                lambda n: (
                    (cost["evaluate, a block of replicates"] + n * test * cost["evaluate, memory for a test image"])
                    / GIGABYTE
                ),
                memory("evaluate"),
            ),
        ],
    )

    raw = KAGGLE_BYTES / PUBLIC
    tasks = sum(readers(list(models), list(recipes)).values())
    prepared = {name: recipe.size**2 * recipe.planes for name, recipe in recipes.items()}
    reads = sum(2 * prepared[entry["recipe"]] for entry in models.values())
    yield Table(
        "Disk and network, in GB",
        LIMIT,
        [
            Row(
                "raw images, as large as the public ones",
                lambda n: n * raw / GIGABYTE,
                params["fetch"]["max_gigabytes"],
            ),
            *(
                Row(f"prepared images of {name}", lambda n, size=size: n * size / GIGABYTE)
                for name, size in prepared.items()
            ),
            Row(
                "validate: thumbnails of images in near pairs, at most",
                lambda n: n * BYTES_ON_DISK / GIGABYTE,
            ),
            Row(f"cluster: raw images copied to {tasks} tasks, as a folder", lambda n: tasks * n * raw / GIGABYTE),
            Row(
                "cluster: raw images read by address, at most",
                lambda n: (sum(READS.values()) + len(recipes)) * n * raw / GIGABYTE,
            ),
            Row("cluster: prepared images copied to train and evaluate", lambda n: n * reads / GIGABYTE),
        ],
    )


def text(params: Mapping[str, Any], cost: Mapping[str, float], figures: RowFigures, sizes: Sequence[int]) -> str:
    """Write the tables.

    Args:
        params: sections of params.yaml.
        cost: result of :func:`measured`.
        figures: result of :func:`read_rows`.
        sizes: numbers of images.

    Returns:
        Markdown.
    """
    lines: list[str] = []
    for table in tables(params, cost, figures):
        heads = [f"{size:,} images" for size in sizes]
        lines += [f"**{table.title}**", "", f"| | {' | '.join(heads)} | {table.limits} |"]
        lines.append(f"| --- | {' | '.join('--:' for _ in sizes)} | --: |")
        for row in table.rows:
            cells = [show_amount(row.need(size), row.limit) for size in sizes]
            lines.append(
                f"| {row.what} | {' | '.join(cells)} | {'' if row.limit is None else show_amount(row.limit)} |"
            )
        lines.append("")
    lines += hours_of_pods(params, cost, figures, sizes[-1])
    lines += [f"- **Beyond the limits at {size:,} images:** {beyond(params, cost, figures, size)}." for size in sizes]
    return "\n".join(lines).strip()


def hours_of_pods(params: Mapping[str, Any], cost: Mapping[str, float], figures: RowFigures, images: int) -> list[str]:
    """Tell how long the steps that work on every image take in as many shards as a run can have.

    Args:
        params: sections of params.yaml.
        cost: result of :func:`measured`.
        figures: result of :func:`read_rows`.
        images: number of images.

    Returns:
        Lines of Markdown.
    """
    resources = {step: ContainerSettings.read(params).resources_of(step) for step in ("validate_shard", "preprocess")}
    lines = [
        f"**{images:,} images in {MAX_AUTO_SHARDS} shards, in hours, by the cores of each pod**",
        "",
        f"| | cores today | hours | {' | '.join(f'{cores} cores' for cores in CORES)} | limit |",
        f"| --- | {' | '.join('--:' for _ in CORES)} | --: | --: | --: |",
    ]
    for row in next(tables(params, cost, figures)).rows:
        step = "validate_shard" if row.what == INSPECT else row.what.partition(" ")[0]
        if step in resources:
            today, limit = quantity(resources[step].cpu), resources[step].hours
            hours = [row.need(images) / MAX_AUTO_SHARDS / cores for cores in (today, *CORES)]
            cells = [f"{today:g}", *(show_amount(amount, limit) for amount in hours), show_amount(limit)]
            lines.append(f"| {row.what} | {' | '.join(cells)} |")
    return [*lines, ""]


def beyond(params: Mapping[str, Any], cost: Mapping[str, float], figures: RowFigures, images: int) -> str:
    """List the work that exceeds the limits of params.yaml, the largest excess first.

    Args:
        params: sections of params.yaml.
        cost: result of :func:`measured`.
        figures: result of :func:`read_rows`.
        images: number of images.

    Returns:
        Each work with the factor by which it exceeds its limit; "nothing" if none does.
    """
    rows = [row for table in tables(params, cost, figures) if table.limits == LIMIT for row in table.rows]
    over_limit = {row.what: row.need(images) / row.limit for row in rows if row.limit and row.need(images) > row.limit}
    ordered = sorted(over_limit.items(), key=lambda item: -item[1])
    return "; ".join(f"{what} ({show_amount(factor)} times)" for what, factor in ordered) or "nothing"


def page(before: str, params: Mapping[str, Any], cost: Mapping[str, float]) -> str:
    """Replace the tables in the page.

    Args:
        before: present text of the page.
        params: sections of params.yaml.
        cost: result of :func:`measured`.

    Returns:
        The page with the new tables.
    """
    return replace_part(before, BEGIN, text(params, cost, read_rows(before), SIZES), END)


def run(parser: argparse.ArgumentParser, sizes: Sequence[int]) -> None:
    """Run the steps on small images, and write what they used to the page.

    Args:
        parser: reports wrong sizes.
        sizes: numbers of images.
    """
    from growth import measure, table
    from machine import describe_machine

    if len(sizes) < 3 or list(sizes) != sorted(set(sizes)):
        parser.error(f"expected three or more rising numbers of images, received --run {' '.join(map(str, sizes))}")
    measured_growth = table({size: measure(size) for size in sizes})
    part = f"On {describe_machine()}. {measured_growth}"
    PAGE.write_text(replace_part(PAGE.read_text(encoding="utf-8"), RUN_BEGIN, part, RUN_END), encoding="utf-8")


def main() -> None:
    """Write the page, print the tables of one size, or run the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, help="print the tables for this number of images, and write nothing")
    parser.add_argument(
        "--run",
        type=int,
        nargs="+",
        metavar="N",
        help="run fetch to evaluate on three or more rising numbers of images",
    )
    arguments = parser.parse_args()
    if arguments.run is not None:
        run(parser, arguments.run)
        return
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    cost = measured(MEASURED.read_text(encoding="utf-8"))
    before = PAGE.read_text(encoding="utf-8")
    if arguments.images is None:
        PAGE.write_text(page(before, params, cost), encoding="utf-8")
    else:
        print(text(params, cost, read_rows(before), [arguments.images]))


if __name__ == "__main__":
    main()
