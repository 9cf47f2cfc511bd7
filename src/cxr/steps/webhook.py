"""Webhook: make the tracking server notify the service when an alias moves."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from cxr.errors import ParameterError
from cxr.steps.base import Step
from cxr.steps.serve import Serve

log = logging.getLogger(__name__)


class Webhook(Step):
    """Make the tracking server notify the service when an alias moves, or stop that."""

    name: ClassVar[str] = "webhook"
    follows: ClassVar[str] = "release"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "serve")
    ignored_keys: ClassVar[frozenset[str]] = (Serve.ignored_keys | set(Serve.model_fields)) - {
        "tracking_uri",
        "secret_variable",
        "webhook_name",
    }

    tracking_uri: Annotated[str, Field(min_length=1, description="Address of the MLflow server: http(s)://HOST.")] = (
        "sqlite:///mlflow.db"
    )
    url: Annotated[
        str, Field(description="Address of the service as the server reaches it, e.g. https://HOST/webhook.")
    ] = ""
    webhook_name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,60}[A-Za-z0-9])?$",
            description="Name of the webhook on the server; each service needs one of its own.",
        ),
    ] = "cxr-serve"
    secret_variable: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Environment variable with the secret, which the service needs as well.",
        ),
    ] = "CXR_WEBHOOK_SECRET"
    remove: Annotated[bool, Field(description="Remove the webhook of that name.")] = False

    @model_validator(mode="after")
    def _require_url(self) -> Self:
        if not self.remove and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"expected the http(s):// address of the service, received url={self.url!r}; give --url")
        return self

    def run(self) -> None:
        """Register or remove the webhook."""
        from cxr.tracking.health import use_short_timeouts
        from cxr.tracking.store import Store
        from cxr.tracking.webhook_signature import read_secret
        from cxr.tracking.webhooks import ensure_webhook, remove_webhook, try_webhook

        use_short_timeouts()
        store = Store(self.tracking_uri)
        if self.remove:
            count = remove_webhook(store, self.webhook_name)
            log.info("%s", f"removed webhook {self.webhook_name}" if count else f"no webhook {self.webhook_name}")
            return
        secret = read_secret(self.secret_variable)
        if secret is None:
            raise ParameterError(
                [
                    f"expected a secret in the environment variable {self.secret_variable}, received none; "
                    "make one with `openssl rand -hex 32` and give it to the service, too"
                ]
            )
        webhook, change = ensure_webhook(store, self.webhook_name, self.url, secret)
        log.info("%s webhook %s: %s notifies %s", change, webhook.name, self.tracking_uri, webhook.url)
        problem = try_webhook(store, webhook)
        if problem is None:
            log.info("the service accepted a signed example; moves of an alias follow within a minute from now on")
        else:
            log.warning("the service did not accept a signed example: %s; until it does, polling finds moves", problem)
