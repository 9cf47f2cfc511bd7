"""Fields about signatures of versions: the key that signs, and the keys that are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cxr.steps.base import SetOnlyIn

if TYPE_CHECKING:
    from cxr.tracking.store import Store

SigningKeyFile = Annotated[
    Path | None,
    Field(description="File of the private key (PEM) that signs versions; null: the one in CXR_SIGNING_KEY, if any."),
]
RequireSignature = Annotated[
    Path | None,
    Field(description="File of public keys (PEM): no version is loaded unless one of them has signed it; null: any."),
    SetOnlyIn(("register", "register_regions")),
]


def open_store(tracking_uri: str, require_signature: Path | None) -> Store:
    """Open a store that only gives versions with a trusted signature, if the parameter asks for that.

    Args:
        tracking_uri: address of the store.
        require_signature: file of public keys; None asks for no signatures.

    Returns:
        The store.

    Raises:
        MissingInputError: if there is no such file.
        ParameterError: if it does not hold public keys.
    """
    from cxr.tracking.signatures import TrustedKeys
    from cxr.tracking.store import Store

    return Store(tracking_uri, trusted_keys=TrustedKeys.read(require_signature))
