"""Which figure chooses models better: AUROC on validation, or its mean under the changes of the stress test?

Run it with ``python benchmarks/choosing.py FOLDER`` on evaluations ``FOLDER/MODEL/SEED/evaluation`` of several models,
each trained with the same seeds on the same split. The trainings of one seed choose a model, and those of the other
seeds judge the choice. Test images are not read. *Between models* is the share of a figure's variance that lies between
models and not between seeds (the intraclass correlation of one training, Shrout and Fleiss 1979): 1 if every seed
orders the models alike, 0 or less if a figure tells nothing about the model.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from cxr.data.split_table import VALIDATION
from cxr.evaluation.stress_test import MEAN
from cxr.files import METRICS_FILE, STRESS_FILE
from cxr.models.metadata import EVALUATION_FOLDER

PLAIN, STRESSED = "validation", "stressed_validation"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    figures = read_figures(parser.parse_args().folder)
    print("| model | validation AUROC, mean ± SD | mean AUROC under changes, mean ± SD |\n| --- | --: | --: |")
    for model, rows in figures.groupby(level="model"):
        columns = [f"{rows[figure].mean():.4f} ± {rows[figure].std():.4f}" for figure in (PLAIN, STRESSED)]
        print(f"| {model} | {' | '.join(columns)} |")
    print(
        "\n| chosen by | between models | chosen model by seed | its AUROC at the other seeds | under changes |"
        "\n| --- | --: | --- | --: | --: |"
    )
    for figure in (PLAIN, STRESSED):
        chosen, judged = choose(figures, figure)
        print(
            f"| {figure} | {share_between_models(figures[figure]):.2f} | {', '.join(chosen)} "
            f"| {judged[PLAIN]:.4f} | {judged[STRESSED]:.4f} |"
        )


def read_figures(folder: Path) -> pd.DataFrame:
    """Read both figures of every training.

    Args:
        folder: evaluations, as the module says.

    Returns:
        Columns validation and stressed_validation, index model and seed.
    """
    rows = []
    for evaluation in sorted(folder.glob(f"*/*/{EVALUATION_FOLDER}")):
        metrics = json.loads((evaluation / METRICS_FILE).read_text(encoding="utf-8"))
        stress = json.loads((evaluation / STRESS_FILE).read_text(encoding="utf-8"))
        rows.append(
            {
                "model": evaluation.parent.parent.name,
                "seed": evaluation.parent.name,
                PLAIN: metrics[VALIDATION]["at_threshold"]["auroc"]["value"],
                STRESSED: stress[VALIDATION][MEAN]["auroc"]["value"],
            }
        )
    return pd.DataFrame(rows).set_index(["model", "seed"])


def choose(figures: pd.DataFrame, figure: str) -> tuple[list[str], pd.Series]:
    """Choose a model with the trainings of each seed, and judge it with those of the other seeds.

    Args:
        figures: result of :func:`read_figures`.
        figure: column that chooses.

    Returns:
        The chosen models in the order of the seeds, and the mean of both figures of the chosen models at other seeds.
    """
    chosen, judged = [], []
    for seed, rows in figures.groupby(level="seed"):
        chosen.append(str(rows[figure].idxmax()[0]))
        others = figures.xs(chosen[-1], level="model")
        judged.append(others[others.index != seed].mean())
    return chosen, pd.DataFrame(judged).mean()


def share_between_models(figure: pd.Series) -> float:
    """Compute the intraclass correlation of one training.

    Args:
        figure: one value per training, index model and seed; as many seeds for each model.

    Returns:
        At most 1.
    """
    by_model = figure.groupby(level="model")
    seeds = int(by_model.size().iloc[0])
    within = float(by_model.var().mean())
    between = seeds * float(by_model.mean().var())
    return (between - within) / (between + (seeds - 1) * within)


if __name__ == "__main__":
    main()
