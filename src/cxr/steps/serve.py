"""Listen: keep the champion ready to answer, and follow the registry when another version takes its place."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cxr.steps.registered import Registered

if TYPE_CHECKING:
    from cxr.serving import Change

log = logging.getLogger(__name__)


class Listen(Registered):
    """Keep the champion loaded, follow its alias by polling and by webhooks, and say which version answers."""

    name: ClassVar[str] = "listen"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "listen")
    passed_over: ClassVar[frozenset[str]] = Registered.passed_over | {"webhook_name"}

    alias: Annotated[str, Field(min_length=1, description="Alias whose version is kept ready.")] = "champion"
    fallback: Annotated[
        str | None,
        Field(description="Alias to take, with a banner, while nobody has had the other one yet; null for none."),
    ] = None
    seconds: Annotated[float, Field(gt=0, le=3600, description="Seconds between two looks at the aliases.")] = 5.0
    keep_log: Annotated[
        bool,
        Field(description="Note moves that a person makes in the promotion log at once; needs leave to write there."),
    ] = True
    host: Annotated[str, Field(min_length=1, description="Address to listen on; 127.0.0.1 is this machine alone.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8765
    secret_variable: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Environment variable with the secret of the webhook; while it is not set, none is taken.",
        ),
    ] = "CXR_WEBHOOK_SECRET"

    def run(self) -> None:
        """Listen until interrupted."""
        from cxr.serving import ServedAlias, Watcher
        from cxr.serving.receiver import Receiver
        from cxr.tracking.lookup import ask_briefly
        from cxr.tracking.signature import SignatureCheck, secret_of

        secret = secret_of(self.secret_variable)
        ask_briefly()
        served = ServedAlias(self.tracking_uri, self.registered_name, self.alias, fallback=self.fallback)
        on_change = [_announce, *([self._note] if self.keep_log else [])]
        watcher = Watcher(served, self.seconds, on_change)
        with Receiver(
            (self.host, self.port), served, watcher.wake, SignatureCheck(secret) if secret else None
        ) as receiver:
            if served.current.banner:
                log.warning("%s", served.current.banner)
            if not secret:
                log.info("%s is not set: webhooks are not taken, polling goes on", self.secret_variable)
            log.info(
                "%s is version %s; looking every %g s, listening on %s",
                served.current.alias, served.current.version, self.seconds, receiver.url,
            )  # fmt: skip
            watcher.start()
            try:
                receiver.serve_forever()
            finally:
                watcher.stop()

    def _note(self, _: Change) -> None:
        from cxr.tracking.registry import observe

        observe(self.tracking_uri, self.registered_name)


def _announce(change: Change) -> None:
    log.info("%s", change)
