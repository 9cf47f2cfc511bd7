"""Fields of every step that registers models: the split, the device, and the bootstrap of the comparison."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from cxr.steps.base import TRAIN_IMAGE, Input
from cxr.steps.signature_fields import RequireSignature, SigningKeyFile
from cxr.steps.tracking_fields import TrackingStep

if TYPE_CHECKING:
    from cxr.promotion.candidates import RunFolders
    from cxr.promotion.policy import AnyPolicy
    from cxr.tracking.store import Store

log = logging.getLogger(__name__)


class RegistrationStep(TrackingStep):
    """A step that registers evaluated models; validation chooses the challenger, a policy the champion."""

    sections_without_effect: ClassVar[tuple[str, ...]] = ()  # another store means another registration
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    cacheable: ClassVar[bool] = False  # the registry may have changed

    splits: Annotated[
        Path, Input("Splits"), Field(description="Folder of the split that the models were judged on.")
    ] = Path("artifacts/splits")
    require_gpu: bool = Field(True, description="Whether only GPU-trained versions may become champion.")
    require_approval: bool = Field(
        False,
        description="Whether a version that keeps the rules waits as `candidate`, until another user than the one that "
        "trained it approves it (`cxr approve`).",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the intervals of the differences.")
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap replicates over patients.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the bootstrap.")
    signing_key: SigningKeyFile = None
    require_signature: RequireSignature = None

    @property
    def store(self) -> Store | None:
        """The tracking store, with the key that signs, and the keys that a champion must be signed by."""
        from cxr.tracking.signatures import SigningKey, TrustedKeys
        from cxr.tracking.store import Store

        if self.offline or not self.tracking_uri:
            return None
        return Store(
            self.tracking_uri,
            signing_key=SigningKey.read(self.signing_key),
            trusted_keys=TrustedKeys.read(self.require_signature),
        )

    def values_of(self, settings: type[Any]) -> dict[str, Any]:
        """Collect the fields of this step that a dataclass has, too.

        Args:
            settings: the dataclass.

        Returns:
            Name to value.
        """
        names = [field.name for field in fields(settings) if field.init and field.name in type(self).model_fields]
        return {name: getattr(self, name) for name in names}

    def register_and_decide(self, run: RunFolders, policy: AnyPolicy, registered_name: str, registration: Path) -> None:
        """Register the models of a run, decide about promotion, and write the decision.

        Args:
            run: where the models are.
            policy: limits of the rules.
            registered_name: name of the registered model.
            registration: folder of the decision.
        """
        from cxr.promotion.report import write_decision
        from cxr.tracking.registry import register, store_decision

        store = self.required_store()
        with store.clear_errors(f"register the models as {registered_name}"):
            result = register(store, run, experiment=self.experiment, registered_name=registered_name, policy=policy)
        write_decision(registration, result)
        with store.clear_errors("take the files of the decision"):
            store_decision(store, result, registration)
        log.info(result.headline())
