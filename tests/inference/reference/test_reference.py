"""What is no upright chest film is told from what is one, by limits that come from training films alone."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr.errors import DataError
from cxr.files import REFERENCE_FILE
from cxr.images.decoding import Picture, decode_picture
from cxr.inference.reference.features import STATISTICS
from cxr.inference.reference.fitting import Described, described, error_rates, fit, judged
from cxr.inference.reference.reference import POSES, Reference, posed
from support.other_images import not_films, photographs

SEEN = 45


@pytest.fixture(scope="module")
def named(phantom_folder: Path) -> list[tuple[str, Picture]]:
    """Phantoms with their patients, healthy and ill by turns; those after the first :data:`SEEN` are other patients."""
    found = [(patient_of(path.name), decode_picture(path.read_bytes())) for path in phantom_folder.rglob("*.jpeg")]
    return sorted(found, key=lambda one: hashlib.sha256(one[0].encode()).digest())


@pytest.fixture(scope="module")
def films(named: list[tuple[str, Picture]]) -> list[Picture]:
    return [film for _, film in named]


@pytest.fixture(scope="module")
def train(films: list[Picture]) -> list[Described]:
    return [described(film) for film in films[:SEEN]]


@pytest.fixture(scope="module")
def reference(train: list[Described], named: list[tuple[str, Picture]]) -> Reference:
    return fit(train, [patient for patient, _ in named[:SEEN]], dataset_kind="phantom")


def patient_of(name: str) -> str:
    return name.split("_")[0].rsplit("-", 1)[0]


def verdict(reference: Reference, one: Picture) -> str | None:
    found = reference.refusal(one, reference.film(one))
    return found.kind if found else None


def test_films_of_other_patients_are_taken(reference: Reference, films: list[Picture]) -> None:
    refused = [number for number, film in enumerate(films[SEEN:], SEEN) if verdict(reference, film)]
    assert len(refused) <= 1, refused


@pytest.mark.parametrize("pose", [pose for pose in POSES if pose != "upright"])
def test_a_film_that_is_turned_or_inverted_is_named_as_such(
    reference: Reference, films: list[Picture], pose: str
) -> None:
    shown = [Picture(posed(film.grey, pose)) for film in films[SEEN:]]
    kinds = [verdict(reference, one) for one in shown]
    assert None not in kinds
    named = kinds.index("inverted" if pose == "inverted" else "turned")
    found = reference.refusal(shown[named], reference.film(shown[named]))
    assert found is not None and POSES[pose] in found.detail
    assert Counter(kinds).most_common(1)[0][0] == found.kind


@pytest.mark.parametrize(("name", "grey"), list(not_films()), ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_chest_film_gets_no_answer(reference: Reference, name: str, grey: np.ndarray) -> None:
    assert verdict(reference, Picture(grey)) == "no_chest_film"


@pytest.mark.parametrize(
    ("name", "path"), list(photographs()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_coloured_picture_is_told_by_its_colours(reference: Reference, name: str, path: Path) -> None:
    one = decode_picture(path.read_bytes())
    found = reference.refusal(one, reference.film(one))
    assert found is not None and found.kind == "coloured" and f"{one.coloured:.0%}" in found.detail


def test_size_brightness_and_contrast_decide_nothing(reference: Reference, films: list[Picture]) -> None:
    for film in films[SEEN:]:
        before = reference.distance(reference.film(film).outline[None])[0]
        larger = cv2.resize(film.grey, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
        pale = np.clip(0.7 * film.grey + 60, 0, 255).astype(np.uint8)
        for changed in (larger, pale):
            after = reference.distance(reference.film(Picture(changed)).outline[None])[0]
            assert after == pytest.approx(before, rel=0.25)


def test_limits_come_from_films_of_patients_that_the_cloud_has_not_seen(train: list[Described]) -> None:
    patients = [str(number) for number in range(SEEN)]
    grouped = fit(train * 5, patients * 5, dataset_kind="phantom")
    leaking = fit(train * 5, [str(number) for number in range(5 * SEEN)], dataset_kind="phantom")
    assert np.all(leaking.scales < 0.6 * grouped.scales)


def test_a_reference_comes_back_as_it_was_saved(reference: Reference, films: list[Picture], tmp_path: Path) -> None:
    assert Reference.load(tmp_path) is None
    replace(reference, facts={"training_films": SEEN}).save(tmp_path)
    again = Reference.load(tmp_path)
    assert again is not None and again.facts == {"training_films": SEEN} and again.dataset_kind == "phantom"
    assert again.statistics.shape == (SEEN, len(STATISTICS)) and len(again.embeddings) == SEEN
    for film in films[SEEN::5]:
        assert again.distance(again.film(film).outline[None]) == reference.distance(reference.film(film).outline[None])
        assert again.pose(again.film(film).outline) == "upright"


def test_a_damaged_reference_is_told(reference: Reference, tmp_path: Path) -> None:
    path = reference.save(tmp_path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=f"expected arrays text, mean.*received .*{REFERENCE_FILE}.*cxr reference"):
        Reference.load(tmp_path)


def test_the_statistics_of_a_film_are_those_of_the_table(reference: Reference, films: list[Picture]) -> None:
    film = reference.film(films[7])
    assert [film.statistics[name] for name in STATISTICS] == pytest.approx(list(reference.statistics[7]), rel=1e-5)
    np.testing.assert_allclose(film.embedding, reference.embeddings[7], atol=1e-4)
    assert film.statistics["aspect"] == films[7].grey.shape[1] / films[7].grey.shape[0]
    inverted = reference.film(Picture(255 - films[7].grey))
    assert inverted.statistics["mean"] == pytest.approx(255 - film.statistics["mean"], abs=0.5)


def test_too_few_films_are_refused(train: list[Described]) -> None:
    with pytest.raises(DataError, match=r"at least 20 training films of 5 patients, received films=19, patients=19"):
        fit(train[:19], [str(number) for number in range(19)], dataset_kind="phantom")


def test_error_rates_count_refusals_with_their_interval(reference: Reference, films: list[Picture]) -> None:
    blank = Picture(np.zeros((300, 300), dtype=np.uint8))
    seen = [film for film in films[:SEEN] if verdict(reference, film) is None]  # taken when it was one of them
    rates = error_rates([judged(reference, film) for film in (*seen[:9], blank)])
    assert (rates["films"], rates["refused"], rates["kinds"]) == (10, 1, {"no_chest_film": 1})
    assert rates["low"] < rates["share"] == 0.1 < rates["high"]
    assert set(rates["noticed"]) == set(POSES) - {"upright"}


@pytest.mark.real
def test_real_films_are_refused_in_at_most_two_of_a_hundred(real_archive: Path, real_originals: Path) -> None:
    taken: list[tuple[str, Picture]] = []
    with tarfile.open(real_archive) as archive:
        for number, member in enumerate(one for one in archive if one.name.endswith(".jpeg")):
            if number % 6 == 0:
                content = archive.extractfile(member)
                assert content is not None
                taken.append((patient_of(Path(member.name).name), decode_picture(content.read())))
    patients = sorted({name for name, _ in taken})
    unseen = set(patients[::2])
    train = [(name, film) for name, film in taken if name not in unseen]
    reference = fit([described(film) for _, film in train], [name for name, _ in train], dataset_kind="patients")
    kinds = [verdict(reference, film) for name, film in taken if name in unseen]
    assert len(kinds) > 300
    assert sum(kind is not None for kind in kinds) / len(kinds) <= 0.02
    with tarfile.open(real_originals) as archive:
        originals = [archive.extractfile(one) for one in archive if one.name.endswith(".jpeg")]
        sizes = [decode_picture(one.read()) for one in originals if one is not None]
    assert [verdict(reference, film) for film in sizes].count(None) >= len(sizes) - 1
    assert [name for name, grey in not_films() if verdict(reference, Picture(grey)) is None] == []
    for pose in set(POSES) - {"upright"}:
        assert None not in [verdict(reference, Picture(posed(film.grey, pose))) for film in sizes]
