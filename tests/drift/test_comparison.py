"""A window of predictions against training and validation: what is called drift, what is not, and the page about it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cxr.drift.comparison import compare
from cxr.drift.findings import WindowComparison, WindowLimits
from cxr.drift.report import Watched, write_report
from cxr.drift.rows import by_day
from cxr.evaluation.validation_scores import ValidationScores
from cxr.images.decoding import Picture, decode_grey
from cxr.inference.answers import Answer
from cxr.inference.reference.features import STATISTICS
from cxr.inference.reference.fitting import described, fit
from cxr.inference.reference.reference import Film, Reference
from cxr.serving.prediction_log import picture_path, read_log
from support.logged_predictions import COUNTED, EVER, NOON, answers, films, reference, served, write_log
from support.model_folders import card

VERSION = ("3", "three_block")


def scores(count: int = 400, seed: int = 99) -> ValidationScores:
    given = [one.prediction for one in answers(films(count, seed), seed)]
    probability = np.array([one.probability for one in given if one])
    return ValidationScores(probability, np.random.default_rng(seed).random(count) < probability)


@pytest.fixture(scope="module")
def training() -> Reference:
    return reference(films(400, 0))


@pytest.fixture(scope="module")
def validation() -> ValidationScores:
    return scores()


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Rows of a log, as written and read."""

    def make(shown: list[Film], seed: int = 7, **kinds: Any) -> pd.DataFrame:
        folder = tmp_path / f"log{len(list(tmp_path.iterdir()))}"
        return read_log(write_log(folder, answers(shown, seed, **kinds)), *EVER).rows

    return make


def named(found: WindowComparison) -> set[str]:
    return {one.name for one in found.drifted}


def test_windows_of_training_films_are_called_drift_in_at_most_two_of_a_hundred(
    training: Reference, validation: ValidationScores
) -> None:
    """Films and scores are parted at random: one part is the reference, the window comes from the other."""
    alarms, significant = [], 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        count = (60, 90, 130)[seed % 3]
        order = generator.permutation(len(training.films))
        window, rest = order[:count], order[count:]
        rows = pd.DataFrame(
            {
                "version": "3", "model": "three_block", "refusal": None, "threshold": 0.5,
                "probability": validation.probability[window],
                "label": np.where(validation.probability[window] >= 0.5, "PNEUMONIA", "NORMAL"),
                "embedding": list(training.embeddings[window]),
                **{f"film.{name}": training.films[window, column] for column, name in enumerate(STATISTICS)},
            }
        )  # fmt: skip
        found = compare(
            rows,
            VERSION,
            replace(training, films=training.films[rest], embeddings=training.embeddings[rest]),
            ValidationScores(validation.probability[rest], validation.pneumonia[rest]),
            seed=seed,
        )
        assert len(found.findings) == len(STATISTICS) + 4, "every comparison was made"
        significant += any(one.difference.p_value < 0.05 for one in found.findings)
        alarms += [seed] if found.drifted else []
    assert len(alarms) <= 2, f"windows of the seeds {alarms}"
    assert significant > 25, "without the correction and the limits, many would be"


def test_other_films_of_the_same_kind_are_no_drift(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    found = compare(rows(films(300, 1), refused=4), VERSION, training, validation)
    assert found.outcome == "no drift"
    assert found.sentence() == "no drift in 12 comparisons, 300 rows"
    assert (found.of_version, found.refused, found.notes) == (300, 4, ())


def test_brighter_films_drift_in_their_mean_alone(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    found = compare(rows(films(60, 1, brighter=20)), VERSION, training, validation)
    assert named(found) == {"mean"}
    assert found.sentence().startswith("drift in mean (distance 0.")
    one = found.drifted[0]
    assert one.now - one.before == pytest.approx(20, abs=8)


def test_films_that_lie_elsewhere_drift_in_their_embedding_alone(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    assert named(compare(rows(films(60, 1, moved=0.7)), VERSION, training, validation)) == {"embedding"}


def test_a_difference_that_is_certain_but_small_is_no_drift(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    window = rows(films(3000, 1, brighter=6))
    found = compare(window, VERSION, training, validation)
    mean = next(one for one in found.findings if one.name == "mean")
    assert mean.corrected < 0.01 and not mean.drifted
    assert named(compare(window, VERSION, training, validation, WindowLimits(distance=0.05))) == {"mean"}


def test_more_ill_people_drift_in_answers_and_their_share_is_estimated(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    found = compare(rows(films(300, 1), ill=0.9), VERSION, training, validation)
    assert named(found) == {"probability", "share of pneumonia"}
    share = next(one for one in found.findings if one.name == "share of pneumonia")
    assert share.change[0] < share.now - share.before < share.change[1]
    assert share.change[0] > 0
    assert found.estimated_pneumonia == pytest.approx(0.9, abs=0.1)


def test_more_refusals_than_were_counted_at_training_drift_even_if_nothing_else_can_be_compared(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    found = compare(rows(films(60, 1), refused=55), VERSION, training, validation)
    assert named(found) == {"share refused"}
    assert found.outcome == "drift"
    assert [note.split(" not")[0] for note in found.notes] == ["films", "answers"]
    assert not named(compare(rows(films(60, 1), refused=2), VERSION, training, validation))
    often = reference(films(100, 3), {"test": {"films": 300, "refused": 90}})
    assert not named(compare(rows(films(60, 1)), VERSION, often, validation)), "fewer are none"


def test_too_few_films_are_an_answer_of_their_own(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    window = rows(films(49, 1, brighter=200))
    found = compare(window, VERSION, training, validation)
    assert found.outcome == "too few to tell"
    assert "49 rows of this version" in found.sentence() and "at least 50" in found.sentence()
    assert compare(window, VERSION, training, validation, WindowLimits(films=49)).outcome == "drift"
    assert compare(window.iloc[:0], VERSION, training, validation).outcome == "too few to tell"


def test_answers_and_refusals_of_other_versions_do_not_count_and_their_films_do(
    tmp_path: Path, training: Reference, validation: ValidationScores
) -> None:
    folder = write_log(tmp_path, answers(films(120, 1), 1))
    write_log(folder, answers(films(120, 2, brighter=30), 2, ill=0.0, refused=40), served("2", ""))
    window = read_log(folder, *EVER).rows
    found = compare(window, VERSION, training, validation)
    assert named(found) == {"mean"}
    assert {one.name: one.rows for one in found.findings} | {"mean": 200, "probability": 120, "embedding": 120} == {
        one.name: one.rows for one in found.findings
    }
    assert found.notes == ("120 rows are of other versions: only their statistics are compared",)
    other = compare(window, ("2", "three_block"), training, validation)
    assert {"probability", "share of pneumonia", "share refused"} <= named(other)
    assert compare(window, ("", "three_block"), training, validation).of_version == 0, "a folder's has no number"


def test_a_version_without_training_films_or_scores_is_compared_in_what_it_has(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    window = rows(films(100, 1))
    assert {one.group for one in compare(window, VERSION, None, validation).findings} == {"answers"}
    alone = compare(window, VERSION, training, None)
    assert {one.group for one in alone.findings} == {"films", "refusals"}
    assert "scores of its validation" in alone.notes[0] and math.isnan(alone.estimated_pneumonia)
    uncounted = compare(window, VERSION, reference(films(100, 3), {}), validation)
    assert "false alarms of this version were not counted" in uncounted.notes[0]


def gamma(grey: NDArray[np.uint8], power: float) -> NDArray[np.uint8]:
    return np.asarray(255 * (grey / 255) ** power, dtype=np.uint8)


def paler(grey: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    return np.asarray(grey.mean() + share * (grey.astype(np.float64) - grey.mean()), dtype=np.uint8)


CHANGES: dict[str, tuple[Callable[[NDArray[np.uint8]], NDArray[np.uint8]], str]] = {
    "as they are": (lambda grey: grey, ""),
    "gamma": (lambda grey: gamma(grey, 0.7), "mean"),
    "less contrast": (lambda grey: paler(grey, 0.7), "contrast"),
    "unsharp": (lambda grey: cv2.GaussianBlur(grey, (0, 0), 4.0), "sharpness"),
    "inverted": (lambda grey: 255 - grey, "share refused"),
}


@dataclass(frozen=True)
class Drawn:
    """Small phantoms, which of them the digital scanner took, and a reference that was fitted on all."""

    shown: list[NDArray[np.uint8]]
    digital: NDArray[np.bool_]
    model: Reference


@pytest.fixture(scope="module")
def drawn(phantom_folder: Path) -> Drawn:
    facts = json.loads((phantom_folder / "boxes.json").read_text())
    shown = []
    for path in facts:
        grey = decode_grey((phantom_folder / path).read_bytes())
        size = (256, round(256 * grey.shape[0] / grey.shape[1]))
        shown.append(np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8))
    model = fit([described(Picture(one)) for one in shown], list(facts), dataset_kind="phantom")
    digital = np.array([one["style"] == "digital" for one in facts.values()])
    return Drawn(shown, digital, replace(model, facts=COUNTED))


def asked(model: Reference, shown: list[NDArray[np.uint8]], folder: Path) -> pd.DataFrame:
    """Rows of a log of films that the real check has looked at."""
    given = []
    for one, answer in zip(shown, answers([model.film(Picture(one)) for one in shown], 3), strict=True):
        refusal = model.refusal(Picture(one), model.film(Picture(one)))
        given.append(Answer(None if refusal else answer.prediction, refusal, answer.film))
    return read_log(write_log(folder, given), *EVER).rows


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_pictures_are_found_in_sixty_films(change: str, drawn: Drawn, tmp_path: Path) -> None:
    alter, name = CHANGES[change]
    window = asked(drawn.model, [alter(one) for one in drawn.shown], tmp_path)
    found = compare(window, VERSION, drawn.model, None)
    assert name in named(found) if name else not named(found), found.sentence()


def test_another_scanner_is_found_in_some_twenty_films(drawn: Drawn, tmp_path: Path) -> None:
    model = replace(
        drawn.model, films=drawn.model.films[drawn.digital], embeddings=drawn.model.embeddings[drawn.digital]
    )
    window = asked(
        model, [one for one, digital in zip(drawn.shown, drawn.digital, strict=True) if not digital], tmp_path
    )
    found = compare(window, VERSION, model, None, WindowLimits(films=15))
    assert {"contrast", "sharpness"} & named(found), found.sentence()


def test_days_have_their_figures(tmp_path: Path) -> None:
    folder = write_log(tmp_path, answers(films(100, 1), 1, refused=10), days=4)
    table = by_day(read_log(folder, *EVER).rows, ["mean"])
    assert table["rows"].tolist() == [25] * 4
    assert table["answered"].sum() == 90
    assert table["mean"].between(85, 115).all()
    assert (table["pneumonia_low"] < table["pneumonia"]).all() and (table["pneumonia"] < table["pneumonia_high"]).all()


def written(folder: Path, training: Reference | None, validation: ValidationScores, *, pixels: bool) -> Path:
    log = write_log(folder / "log", answers(films(90, 1, brighter=25), 1, refused=2), days=3, pixels=pixels)
    window = read_log(log, *EVER).rows
    found = compare(window, VERSION, training, validation)
    watched = Watched("3", "champion", card(), training, validation, NOON - timedelta(days=3), NOON, 1)
    (folder / "report").mkdir()
    write_report(
        folder / "report", found, window, watched, picture_of=lambda name: picture_path(log, name), more={"one": 1}
    )
    return folder / "report"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, training: Reference, validation: ValidationScores) -> Path:
    """Of a window with drift, whose pictures were kept."""
    return written(tmp_path_factory.mktemp("report"), training, validation, pixels=True)


def test_the_page_stands_alone(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "<h1>drift</h1>" in page and "drift in mean" in page and "1 lines were cut off" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page), "no other file, no network"
    assert page.count("data:image/png") == 5
    assert page.count("data:image/jpeg") == 8, "examples"


def test_the_page_shows_no_pictures_where_none_were_kept_and_no_films_of_a_version_that_has_none(
    tmp_path: Path, validation: ValidationScores
) -> None:
    page = (written(tmp_path, None, validation, pixels=False) / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert "data:image/jpeg" not in page
    assert "register it again" in page


def test_the_file_for_programs_has_every_figure(report: Path) -> None:
    found = json.loads((report / "drift.json").read_text())
    assert (found["outcome"], found["version"], found["rows"], found["refused"]) == ("drift", "3", 90, 2)
    assert found["damaged_lines"] == found["one"] == 1
    mean = next(one for one in found["findings"] if one["name"] == "mean")
    assert mean["drifted"] and mean["distance"] > mean["limit"] and mean["corrected"] >= mean["p_value"]
    assert mean["change"] == [None, None], "unknown is null"


def test_metrics_are_finite_and_named_alike_whatever_drifts(
    training: Reference, validation: ValidationScores, rows: Callable[..., pd.DataFrame]
) -> None:
    calm = compare(rows(films(100, 1)), VERSION, training, validation).metrics()
    moved = compare(rows(films(100, 1, brighter=40)), VERSION, training, validation).metrics()
    assert set(calm) == set(moved)
    assert (calm["drifted"], moved["drifted"]) == (0, 1)
    assert moved["distance/mean"] > 0.15 > calm["distance/mean"]
    assert {"share_of_pneumonia", "share_refused", "p_value/embedding"} <= set(calm)
    assert all(math.isfinite(value) for value in moved.values())
