"""CSV bodies, made into the JSON Lines that batches are read from."""

from __future__ import annotations

import csv
import io
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct, inspect

from libs.common.errors import FieldError
from libs.common.http.problems import Refused

CSV = "text/csv"
MORE = "a cell without a column"
"""Field of cells to the right of the last column: no item has it, so they are refused by this name."""
MAX_COLUMNS = 64
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


def lines_of(data: bytes, type_: type[Struct], most: int) -> bytes:
    """The rows of a table with a head line (RFC 4180), one JSON object a line, empty cells left out.

    A cell becomes what its column is in ``type_``: a number where it reads as one, a list by `SEPARATOR`,
    else text; what does not fit is left as it is, for the reader of the lines to refuse by name. Raises
    `Refused` 400 for what is no table and for one of more than `MAX_COLUMNS`, 422 for a head line alone. Of
    more rows than ``most`` one is read, for the reader of the lines to refuse them all.
    """
    kinds = {field.encode_name: _kinds(field.type) for field in inspect.type_info(type_).fields}  # type: ignore[attr-defined]
    try:
        read = (row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if row)
        head = [column.strip() for column in next(read, [])]
        if len(head) > MAX_COLUMNS:
            raise Refused(400, "bad_csv", f"a table may have {MAX_COLUMNS} columns, not {len(head)}")
        rows = [_encode(_item(head, row, kinds)) for row in islice(read, most + 1)]
    except (csv.Error, UnicodeDecodeError):
        raise Refused(400, "bad_csv", "the body is no CSV table in UTF-8") from None
    if head and not rows:
        raise Refused(422, "missing", "the batch is empty", [FieldError("", "missing", "the batch is empty")])
    return b"\n".join(rows)


def _item(head: list[str], row: list[str], kinds: dict[str, frozenset[type]]) -> dict[str, Any]:
    # Rows may be shorter than the head: nothing is made of the cells they lack.
    cells = zip(head, row, strict=False)
    item = {name: _value(cell.strip(), kinds.get(name, frozenset())) for name, cell in cells if cell}
    if len(row) > len(head):
        item[MORE] = row[len(head) :]
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
