"""Sign: sign a version that is registered already."""

from __future__ import annotations

from typing import ClassVar

from cxr.errors import ParameterError
from cxr.steps.registry_fields import VersionFilesStep
from cxr.steps.signature_fields import SigningKeyFile
from cxr.steps.version_fields import VersionStep


class Sign(VersionFilesStep, VersionStep):
    """Sign a version that is registered already, or sign it with another key; its files do not change."""

    name: ClassVar[str] = "sign"
    follows: ClassVar[str] = "lineage"
    ignored_keys: ClassVar[frozenset[str]] = VersionFilesStep.ignored_keys - {"signing_key"}

    signing_key: SigningKeyFile = None

    def run(self) -> None:
        """Sign the version and print its number and the key.

        Raises:
            ParameterError: if there is no key.
        """
        from cxr.tracking.signatures import KEY_VARIABLE, NEW_KEY, SigningKey
        from cxr.tracking.version_evidence import sign_version

        key = SigningKey.read(self.signing_key)
        if key is None:
            raise ParameterError(
                [f"expected a private key, received signing_key=null and no {KEY_VARIABLE}; give the file of one; "
                 f"{NEW_KEY}"]
            )  # fmt: skip
        number = sign_version(self.store, self.registered_name, self.version, key)
        self.show(f"version {number} of {self.registered_name} is signed by key {key.key_id}")
