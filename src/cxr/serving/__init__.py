"""Serving: the version that has an alias, ready to answer, exchanged for the next one while it answers."""

from cxr.serving.served import Served, ServedAlias
from cxr.serving.watcher import Change, Watcher

__all__ = ["Change", "Served", "ServedAlias", "Watcher"]
