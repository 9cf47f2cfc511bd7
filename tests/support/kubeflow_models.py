"""Checks bodies of requests against the v2beta1 models of KFP's own client."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import kfp_server_api.models as models

PLAIN_TYPES = {"str": str, "bool": bool, "int": int, "float": float, "object": object}
INT64_FIELDS = {"max_concurrency", "interval_second"}
"""64-bit integers: the JSON of protocol buffers writes them as text and also reads numbers."""


class InvalidBodyError(Exception):
    """A body that does not match its model."""


def check_body(value: Any, kind: str, where: str) -> None:
    """Refuse unknown fields, wrong types and unknown members of enumerations.

    Raises:
        UnfitError: naming the field.
    """
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        _check_type(value, list, where)
        for position, item in enumerate(value):
            check_body(item, match[1], f"{where}[{position}]")
    elif match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        _check_type(value, dict, where)
        for key, item in value.items():
            check_body(item, match[1], f"{where}.{key}")
    elif kind == "datetime":
        _check_type(value, str, where)
        datetime.fromisoformat(value)
    elif kind in PLAIN_TYPES:
        if kind == "str" and where.rpartition(".")[2] in INT64_FIELDS and isinstance(value, int) and value is not True:
            return
        _check_type(value, PLAIN_TYPES[kind], where)
        if kind in {"int", "float"} and isinstance(value, bool):
            raise InvalidBodyError(f"{where}: expected {kind}, received {value!r}")
    else:
        _check_model(value, getattr(models, kind), where)


def _check_model(value: Any, model: Any, where: str) -> None:
    if not model.openapi_types:
        if value not in model.allowable_values:
            raise InvalidBodyError(f"{where}: expected one of {model.allowable_values}, received {value!r}")
        return
    _check_type(value, dict, where)
    fields = {json_name: model.openapi_types[field] for field, json_name in model.attribute_map.items()}
    for name, field_value in value.items():
        if name not in fields:
            raise InvalidBodyError(f"{where}: unknown field {name!r}")
        check_body(field_value, fields[name], f"{where}.{name}")


def _check_type(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        raise InvalidBodyError(f"{where}: expected {kind.__name__}, received {value!r}")
