"""CSV bodies, made into the JSON Lines that batches are read from."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec
from msgspec import Struct, inspect

from libs.common.http.problems import Refused

CSV = "text/csv"
MORE = "a cell without a column"
"""Field of cells to the right of the last column: no item has it, so they are refused by this name."""
SEPARATOR = ";"
"""Between the members of a list in one cell."""

_encode = msgspec.json.Encoder().encode


def is_csv(content_type: bytes) -> bool:
    """Whether a body of this Content-Type is a table; raises 415 for one that is not UTF-8."""
    media, *parameters = content_type.decode("latin-1").lower().split(";")
    if media.strip() != CSV:
        return False
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip("\"'") not in ("utf-8", "utf8"):
            raise Refused(415, "charset", "bodies must be UTF-8")
    return True


def lines_of(data: bytes, type_: type[Struct]) -> bytes:
    """The rows of a table with a head line (RFC 4180), one JSON object a line, empty cells left out.

    A cell becomes what its column is in ``type_``: a number where it reads as one, a list by `SEPARATOR`,
    else text; what does not fit is left as it is, for the reader of the lines to refuse by name. Raises
    `Refused` 400 for what is no table.
    """
    kinds = {field.encode_name: _kinds(field.type) for field in inspect.type_info(type_).fields}  # type: ignore[attr-defined]
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), restkey=MORE))
    except (csv.Error, UnicodeDecodeError):
        raise Refused(400, "bad_csv", "the body is no CSV table in UTF-8") from None
    return b"\n".join(_encode(_item(row, kinds)) for row in rows)


def _item(row: dict[Any, Any], kinds: dict[str, frozenset[type]]) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for column, cell in row.items():
        # Short rows have None for the cells they lack, long ones a list for those beyond the head.
        if isinstance(cell, list):
            item[MORE] = cell
        elif cell:
            name = column.strip()
            item[name] = _value(cell.strip(), kinds.get(name, frozenset()))
    return item


def _value(cell: str, kinds: frozenset[type]) -> Any:
    if inspect.ListType in kinds:
        return [part.strip() for part in cell.split(SEPARATOR) if part.strip()]
    if kinds & {inspect.IntType, inspect.FloatType, inspect.BoolType}:
        try:
            return msgspec.json.decode(cell.encode())
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return cell
    return cell


def _kinds(type_: inspect.Type) -> frozenset[type]:
    if isinstance(type_, inspect.UnionType):
        return frozenset(kind for one in type_.types for kind in _kinds(one))
    return frozenset({type(type_)})
