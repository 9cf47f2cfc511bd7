"""Bodies of requests held against the v2beta1 models of KFP's own client."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import kfp_server_api.models as models

PLAIN = {"str": str, "bool": bool, "int": int, "float": float, "object": object}
LONG = {"max_concurrency", "interval_second"}
"""Whole numbers of 64 bits: JSON of protocol buffers writes them as text, and reads numbers, too."""


class UnfitError(Exception):
    """A body that is not what the model says."""


def check(value: Any, kind: str, where: str) -> None:
    """Refuse unknown fields, wrong types and unknown members of enumerations.

    Raises:
        UnfitError: naming the field.
    """
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        _is(value, list, where)
        for position, one in enumerate(value):
            check(one, match[1], f"{where}[{position}]")
    elif match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        _is(value, dict, where)
        for key, one in value.items():
            check(one, match[1], f"{where}.{key}")
    elif kind == "datetime":
        _is(value, str, where)
        datetime.fromisoformat(value)
    elif kind in PLAIN:
        if kind == "str" and where.rpartition(".")[2] in LONG and isinstance(value, int) and value is not True:
            return
        _is(value, PLAIN[kind], where)
        if kind in {"int", "float"} and isinstance(value, bool):
            raise UnfitError(f"{where}: expected {kind}, received {value!r}")
    else:
        _check_model(value, getattr(models, kind), where)


def _check_model(value: Any, model: Any, where: str) -> None:
    if not model.openapi_types:
        if value not in model.allowable_values:
            raise UnfitError(f"{where}: expected one of {model.allowable_values}, received {value!r}")
        return
    _is(value, dict, where)
    fields = {json_name: model.openapi_types[field] for field, json_name in model.attribute_map.items()}
    for name, one in value.items():
        if name not in fields:
            raise UnfitError(f"{where}: unknown field {name!r}")
        check(one, fields[name], f"{where}.{name}")


def _is(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        raise UnfitError(f"{where}: expected {kind.__name__}, received {value!r}")
