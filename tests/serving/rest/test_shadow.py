"""A shadow answers too: unseen, after the client, and without any effect on the client's answer."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from cxr.errors import ParameterError
from cxr.images.decoding import decode_image
from cxr.images.sandbox import SandboxedDecoder
from cxr.inference.checked_prediction import PredictionResult
from cxr.inference.predictor import Predictor
from cxr.inference.reference.refusals import Refusal
from cxr.models.metadata import ModelMetadata
from cxr.serving.alias_watcher import AliasWatcher
from cxr.serving.model_provider import AliasModelProvider
from cxr.serving.prediction_log import PredictionLog
from cxr.serving.prediction_log_reader import read_prediction_log
from cxr.serving.rest.shadow import MAX_WAITING_IMAGES, ShadowPredictor
from cxr.serving.rest.shadow_metrics import ShadowMetrics
from cxr.serving.shadow_provider import AliasShadowProvider
from cxr.steps.serve import Serve
from cxr.tracking.store import Store
from support.logged_predictions import ALL_TIME
from support.model_folders import ModelFolders
from support.rest_service import PNG_HEADERS, ServeCommand, champion_provider, run_service
from support.tracking_server import NAME, wait_until, write_registry

MODELS = {"1": "three_block", "2": "shallow"}
IMAGES = 32


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ModelFolders]:
    uri, folders = write_registry(tmp_path_factory.mktemp("store"))
    for alias, version in (("champion", "1"), ("challenger", "2")):
        Store(uri).client.set_registered_model_alias(NAME, alias, version)
    return uri, folders


@pytest.fixture(scope="module")
def champion(store: tuple[str, ModelFolders]) -> AliasModelProvider:
    return champion_provider(store[0], NAME)


@pytest.fixture
def shadows(store: tuple[str, ModelFolders], champion: AliasModelProvider) -> AliasShadowProvider:
    provider = AliasShadowProvider(Store(store[0]), NAME, "challenger", champion)
    assert provider.current is None, "the service does not wait for it"
    provider.reload()
    return provider


def expected_answers(folders: ModelFolders, version: str) -> list[tuple[str, float]]:
    model = MODELS[version]
    predictor = Predictor.load(folders.models / model, ModelMetadata.read(folders.evaluations / model))
    return [(answer.label, answer.probability) for answer in predictor.predict(folders.images[:IMAGES])]


@pytest.fixture(scope="module")
def command(store: tuple[str, ModelFolders], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeCommand]:
    folder = tmp_path_factory.mktemp("serving")
    command = ServeCommand(
        folder / "output", "--tracking_uri", store[0], "--shadow", "next", "--seconds", "0.2", "--workers", "1",
        "--log_predictions", str(folder / "log"),
    )  # fmt: skip
    yield command
    command.kill()


def test_both_answers_stand_in_the_log_and_the_client_gets_that_of_the_champion(
    store: tuple[str, ModelFolders],
    champion: AliasModelProvider,
    shadows: AliasShadowProvider,
    decoder: SandboxedDecoder,
    tmp_path: Path,
) -> None:
    folders = store[1]
    expected = {version: expected_answers(folders, version) for version in MODELS}
    prediction_log = PredictionLog(tmp_path / "log", keep_images=False)
    images = folders.images[:IMAGES]
    with run_service(champion, decoder=decoder) as without_shadow:
        plain = without_shadow.client.predict_all(*images).json
        text = without_shadow.client.request("GET", "/metrics").body.decode()
    assert "shadow" not in text, "a service without a shadow has no metrics of one"
    with run_service(champion, decoder=decoder, prediction_log=prediction_log, shadows=shadows) as service:
        response = service.client.predict_all(*images).json
        wait_until(lambda: service.client.metric("cxr_shadow_answers_total", version="2") == IMAGES)
        agreements = service.client.metric("cxr_shadow_answers_total", version="2", agrees="yes")
        wait_until(lambda: service.client.metric("cxr_shadow_workers", version="2", alias="challenger") == 1)
    assert {**response, "request_id": ""} == {**plain, "request_id": ""}
    assert "shadow" not in json.dumps(response)
    rows = read_prediction_log(tmp_path / "log", *ALL_TIME).rows
    assert set(rows["version"]) == {"1"} and set(rows["shadow_version"]) == {"2"}
    assert rows["probability"].tolist() == pytest.approx([probability for _, probability in expected["1"]], abs=1e-6)
    assert rows["shadow_probability"].tolist() == pytest.approx([value for _, value in expected["2"]], abs=1e-6)
    assert rows["shadow_label"].tolist() == [label for label, _ in expected["2"]]
    assert agreements == (rows["label"] == rows["shadow_label"]).sum()


def test_the_shadow_waits_for_requests_and_a_full_queue_drops_images_at_once(
    champion: AliasModelProvider, shadows: AliasShadowProvider, store: tuple[str, ModelFolders]
) -> None:
    registry, excess = CollectorRegistry(), 5
    images = [decode_image(store[1].images[0].read_bytes())] * (MAX_WAITING_IMAGES + excess)
    refused = PredictionResult(None, Refusal("turned", "it looks turned"))
    results = [refused, *champion.current.predict(images[:1]) * (len(images) - 1)]
    rows = [None] * len(images)

    def start(stack: ExitStack, max_pixels: int) -> ShadowPredictor:
        watcher = AliasWatcher(shadows, 3600.0)
        predictor = ShadowPredictor(shadows, watcher, ShadowMetrics(registry), None, max_pixels)
        predictor.start(stack)
        return predictor

    def count(name: str, **labels: str) -> float:
        samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    with ExitStack() as stack:
        predictor = start(stack, 10**9)
        with predictor.request_running():
            started = time.monotonic()
            predictor.submit(champion.current, results, images, rows)
            assert time.monotonic() - started < 0.5
            assert count("cxr_shadow_dropped_total") == excess
            time.sleep(0.2)
            assert count("cxr_shadow_answers_total") == 0, "the request has the processor for itself"
        wait_until(lambda: count("cxr_shadow_answers_total") == MAX_WAITING_IMAGES)
        assert count("cxr_shadow_answers_total", version="2", agrees="no") == 1, "the client was told of a refusal"
        predictor.submit(shadows.current or champion.current, results, images, rows)
        time.sleep(0.2)
        assert count("cxr_shadow_answers_total") == MAX_WAITING_IMAGES, "the same version does no work twice"
    registry = CollectorRegistry()
    with ExitStack() as stack:
        predictor = start(stack, 3 * images[0].grey.size)
        with predictor.request_running():
            predictor.submit(champion.current, results, images, rows)
            assert count("cxr_shadow_dropped_total") == len(images) - 3, "memory is limited too"


def test_a_shadow_that_fails_is_counted_and_no_request_fails(
    store: tuple[str, ModelFolders],
    champion: AliasModelProvider,
    shadows: AliasShadowProvider,
    decoder: SandboxedDecoder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert shadows.current is not None and isinstance(shadows.current.predictor, Predictor)
    shadows.current.predictor.logit_head[1][:] = np.nan
    prediction_log = PredictionLog(tmp_path / "log", keep_images=False)
    with run_service(champion, decoder=decoder, prediction_log=prediction_log, shadows=shadows) as service:
        responses = [service.client.predict(image, PNG_HEADERS) for image in store[1].images[:2]]
        wait_until(lambda: service.client.metric("cxr_shadow_errors_total", version="2") == 2)
        assert service.client.metric("cxr_shadow_answers_total") == 0
    assert [response.status for response in responses] == [200, 200]
    rows = read_prediction_log(tmp_path / "log", *ALL_TIME).rows
    assert rows["version"].tolist() == ["1", "1"] and rows["shadow_version"].isna().all()
    messages = [record.message for record in caplog.records if "the shadow, version 2, cannot answer" in record.message]
    assert len(messages) == 1, "said once, not for each image"


def test_a_shadow_appears_moves_and_rests_as_the_registry_says(
    store: tuple[str, ModelFolders], champion: AliasModelProvider, caplog: pytest.LogCaptureFixture
) -> None:
    client, alias = Store(store[0]).client, "candidate"
    provider = AliasShadowProvider(Store(store[0]), NAME, alias, champion)
    with caplog.at_level(logging.INFO, "cxr"):
        provider.reload()
        provider.reload()
        assert provider.current is None and provider.problem is None
        client.set_registered_model_alias(NAME, alias, "2")
        assert provider.reload()
        first = provider.current
        assert first is not None and (first.version, first.alias) == ("2", alias)
        provider.reload()
        assert provider.current is first
        client.set_registered_model_alias(NAME, alias, "1")
        assert provider.reload()
        assert provider.current is None, "the champion does no work twice"
        client.set_registered_model_alias(NAME, alias, "2")
        provider.reload()
        client.delete_registered_model_alias(NAME, alias)
        assert provider.reload()
        assert provider.current is None
    absences = [record.message for record in caplog.records if record.message.endswith("no shadow answers")]
    nobody = f"no version of {NAME} has the alias candidate: no shadow answers"
    assert absences == [nobody, "version 1 has the alias candidate and answers the clients: no shadow answers", nobody]


def test_a_version_that_cannot_be_loaded_is_no_shadow(
    store: tuple[str, ModelFolders], champion: AliasModelProvider, tmp_path: Path
) -> None:
    client = Store(store[0]).client
    (tmp_path / "artifact").mkdir()
    broken = client.create_model_version(NAME, f"file://{tmp_path}").version
    client.set_registered_model_alias(NAME, "broken", broken)
    provider = AliasShadowProvider(Store(store[0]), NAME, "broken", champion)
    assert not provider.reload()
    assert provider.current is None and provider.problem is not None
    assert f"version {broken}" in provider.problem and provider.problem.endswith("no shadow answers")


@pytest.mark.exhaustive  # test_workers starts the command, and a test above follows the registry
def test_the_command_starts_without_a_shadow_and_takes_it_up_when_its_alias_appears(
    command: ServeCommand, store: tuple[str, ModelFolders], tmp_path: Path
) -> None:
    uri, folders = store
    client, image = command.client, folders.images[0]
    wait_until(lambda: "has the alias next: no shadow answers" in command.text)
    first = client.predict(image, PNG_HEADERS).json
    Store(uri).client.set_registered_model_alias(NAME, "next", "2")
    wait_until(lambda: client.metric("cxr_shadow_workers", version="2", alias="next") == 1, 30)
    assert f"version 2 of {NAME} answers unseen, as the shadow (shallow, next)" in command.text
    second = client.predict(image, PNG_HEADERS).json
    assert {**first, "request_id": ""} == {**second, "request_id": ""}
    wait_until(lambda: client.metric("cxr_shadow_answers_total") == 1)
    assert client.metric("cxr_shadow_dropped_total") == client.metric("cxr_shadow_errors_total") == 0
    assert command.text.count("next is now version 2") == 1, "one watcher reports a move"
    log = read_prediction_log(command.log.with_name("log"), *ALL_TIME)
    assert log.damaged == 0 and log.rows["shadow_version"].isna().tolist() == [True, False]
    assert log.rows["time"].diff().max() > timedelta(0)
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(30) == 128 + signal.SIGTERM
    assert "Traceback" not in command.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shadow": "champion"}, "received shadow=champion, alias=champion"),
        ({"shadow": "challenger", "model": "m"}, "received shadow=challenger, model=m"),
    ],
)
def test_a_shadow_that_cannot_be_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Serve.build(values)
