"""Things on Kubeflow Pipelines by their names: the API itself knows ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from cxr.kubeflow.connection import Connection

PAGE_SIZE = 100


class Names:
    """Listings of one server, in one namespace, filtered by name."""

    def __init__(self, connection: Connection, namespace: str | None) -> None:
        """Keep what listings need.

        Args:
            connection: the way to the server.
            namespace: namespace to look in; None where the installation has none to choose.
        """
        self._connection = connection
        self._namespace = namespace

    def one(self, listing: Callable[..., Any], kind: str, name: str, what: str, *within: str) -> Any:
        """Find the one thing of a name.

        Args:
            listing: method of a service that lists such things.
            kind: field of its answer that holds them.
            name: the name.
            what: what it is, for errors, e.g. ``"experiment"``.
            *within: arguments of the listing before the filter, e.g. the pipeline of versions.

        Returns:
            An object of the client's models; None if there is none of that name.

        Raises:
            ClusterError: in plain words.
        """
        return next(iter(self.all(listing, kind, name, what, *within)), None)

    def all(self, listing: Callable[..., Any], kind: str, name: str, what: str, *within: str) -> list[Any]:
        """Find everything of a name, page by page.

        Args:
            listing: method of a service that lists such things.
            kind: field of its answer that holds them.
            name: the name.
            what: what they are, for errors.
            *within: arguments of the listing before the filter.

        Returns:
            Objects of the client's models.

        Raises:
            ClusterError: in plain words.
        """
        where = self.where({"display_name": name}, namespaced=not within)
        found: list[Any] = []
        token = ""
        while True:
            answer = self._connection.ask(
                listing,
                *within,
                **where,
                page_token=token,
                page_size=PAGE_SIZE,
                doing=f"find {what}={name!r}",
                again=True,
            )
            found += getattr(answer, kind) or ()
            token = answer.next_page_token
            if not token:
                # The server does not tell capital letters from small ones.
                return [one for one in found if one.display_name == name]

    def where(self, equal: Mapping[str, str], *, namespaced: bool = True) -> dict[str, str]:
        """Filter and namespace of a listing.

        Args:
            equal: field to the value that it must have.
            namespaced: whether the listing is of a namespace.

        Returns:
            Named arguments of the listing.
        """
        predicates = [{"operation": "EQUALS", "key": key, "string_value": value} for key, value in equal.items()]
        where = {"filter": json.dumps({"predicates": predicates})}
        return {**where, "namespace": self._namespace} if self._namespace and namespaced else where
