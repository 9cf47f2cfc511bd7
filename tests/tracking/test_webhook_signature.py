"""A message counts only if MLflow has signed it, and it is unaltered and recent."""

from __future__ import annotations

import json

import pytest

from cxr.errors import ParameterError, SignatureError
from cxr.tracking.webhook_signature import (
    DELIVERY_HEADER,
    MAX_AGE_SECONDS,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    SignatureCheck,
    read_secret,
)

SECRET = "a secret of some length"
NOW = 1_800_000_000
BODY = json.dumps(
    {
        "entity": "model_version_alias",
        "action": "created",
        "timestamp": "2027-01-15T08:00:00+00:00",
        "data": {"name": "pneumonia-classifier", "alias": "champion", "version": "3"},
    }
)


def signed(body: str = BODY, secret: str = SECRET, at: str = str(NOW), delivery_id: str = "one") -> dict[str, str]:
    """Headers as MLflow's own code makes them."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    signature = _generate_hmac_signature(secret, delivery_id, at, body)
    return {"signature": signature, "delivery_id": delivery_id, "timestamp": at}


def check() -> SignatureCheck:
    return SignatureCheck(SECRET, clock=lambda: NOW)


def test_a_message_that_mlflow_has_signed_is_read() -> None:
    event = check().check(BODY.encode(), **signed())
    assert event.event == "model_version_alias.created"
    assert event.data == {"name": "pneumonia-classifier", "alias": "champion", "version": "3"}
    assert not event.repeated


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY, signed(secret="another secret of some length")),
        (BODY.replace("3", "4"), signed()),
        (BODY + " ", signed()),
        (BODY, {**signed(), "delivery_id": "two"}),
        (BODY, {**signed(), "timestamp": str(NOW + 1)}),
        (BODY, {**signed(), "signature": signed()["signature"].removeprefix("v1,")}),
        (BODY, {**signed(), "signature": "v1,\udcff"}),
        (BODY, {**signed(), "signature": None}),
        (BODY, {**signed(), "delivery_id": None}),
        (BODY, {**signed(), "timestamp": None}),
        (BODY, {**signed(), "signature": ""}),
    ],
)
def test_forged_altered_or_unsigned_messages_are_refused(body: str, headers: dict[str, str]) -> None:
    with pytest.raises(SignatureError):
        check().check(body.encode(), **headers)


@pytest.mark.parametrize("at", [NOW - MAX_AGE_SECONDS - 1, NOW + MAX_AGE_SECONDS + 1, "nan", "inf", "-1", "1e9", "٣"])
def test_a_signed_message_that_is_not_recent_is_refused(at: float | str) -> None:
    at = at if isinstance(at, str) else f"{at:.0f}"
    with pytest.raises(SignatureError, match="of the last 300 s"):
        check().check(BODY.encode(), **signed(at=at))


def test_a_message_is_accepted_if_clocks_differ_a_little() -> None:
    for number, seconds in enumerate((-MAX_AGE_SECONDS, MAX_AGE_SECONDS)):
        assert check().check(BODY.encode(), **signed(at=f"{NOW + seconds:.0f}", delivery_id=str(number)))


def test_a_repeated_message_is_recognised_for_as_long_as_it_is_accepted() -> None:
    now = [NOW]
    signatures = SignatureCheck(SECRET, clock=lambda: now[0])
    assert not signatures.check(BODY.encode(), **signed()).repeated
    now[0] = NOW + int(MAX_AGE_SECONDS)
    assert signatures.check(BODY.encode(), **signed()).repeated
    assert not signatures.check(BODY.encode(), **signed(delivery_id="two")).repeated


@pytest.mark.parametrize("body", ["", "[]", "no JSON", '{"entity": "a", "action": "b"}'])
def test_a_signed_message_of_another_form_is_refused(body: str) -> None:
    with pytest.raises(SignatureError, match="MLflow's form"):
        check().check(body.encode(), **signed(body))


def test_the_headers_are_those_of_the_installed_mlflow() -> None:
    from mlflow.webhooks import constants

    assert SIGNATURE_HEADER == constants.WEBHOOK_SIGNATURE_HEADER
    assert DELIVERY_HEADER == constants.WEBHOOK_DELIVERY_ID_HEADER
    assert TIMESTAMP_HEADER == constants.WEBHOOK_TIMESTAMP_HEADER


def test_the_secret_comes_from_the_environment_and_is_not_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_SECRET", raising=False)
    assert read_secret("SOME_SECRET") is None
    monkeypatch.setenv("SOME_SECRET", f" {SECRET}\n")
    assert read_secret("SOME_SECRET") == SECRET
    monkeypatch.setenv("SOME_SECRET", "short")
    with pytest.raises(ParameterError, match="at least 16 characters, received 5 in SOME_SECRET") as error:
        read_secret("SOME_SECRET")
    assert "short" not in str(error.value).replace("shorter", "")
