"""Proxies that the environment names (``HTTP_PROXY`` and its like) are for other machines, never for this one."""

from __future__ import annotations

from collections.abc import MutableMapping

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names and addresses by which programs on one machine reach each other."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def exempt_loopback(environment: MutableMapping[str, str]) -> None:
    """Add this machine's own addresses to ``NO_PROXY``, in both spellings, if a proxy is named.

    Libraries send even requests to 127.0.0.1 to a proxy, which cannot answer them.

    Args:
        environment: the variables of the process, which its child processes inherit; changed in place.
    """
    if not any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES):
        return
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    exempt = [name.strip() for name in listed.split(",") if name.strip()]
    if "*" not in exempt:
        exempt += [name for name in LOOPBACK if name not in exempt]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(exempt)
