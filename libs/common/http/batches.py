"""Batches: one object, a list, ``{"<plural>": [...]}`` or JSON Lines; bad items named, the rest go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from starlette.responses import Response

from libs.common.errors import FieldError, Invalid
from libs.common.http.answers import Answer
from libs.common.http.json_text import NotJson, empty_body, encoded_size, is_suspicious, parse_json
from libs.common.http.problems import Refused
from libs.common.http.strict import strict_variant
from libs.common.items import MAX_DEPTH, MAX_ITEM_BYTES, convert_item, is_clean, refuse_unknown

T = TypeVar("T", bound=msgspec.Struct)

MAX_ITEMS = 2_500
_PEEK = 512


class Rejection(msgspec.Struct, frozen=True):
    """An item that was refused, and why."""

    index: int
    id: str | None
    code: str
    field: str
    reason: str


class BatchAnswer(msgspec.Struct, frozen=True):
    """The answer to a batch."""

    accepted: int
    rejected: list[Rejection]
    position: str | None


class Batch(Generic[T]):
    """A batch as it came: ``items`` are (index, well-formed item); ``rejected`` grows by `refuse`.

    ``envelope`` holds the other members of an ``{"<plural>": [...]}`` object.
    """

    __slots__ = ("_by_index", "_id_field", "_prefix", "_refused", "envelope", "items", "rejected", "total")

    def __init__(
        self,
        items: list[tuple[int, T]],
        total: int,
        id_field: str,
        prefix: str | None,
        envelope: Mapping[str, Any],
    ) -> None:
        self.items = items
        self.total = total
        self.rejected: list[Rejection] = []
        self.envelope = envelope
        self._refused: set[int] = set()
        self._by_index: dict[int, T] | None = None
        self._id_field = id_field
        self._prefix = prefix

    def refuse(self, index: int, error: Invalid) -> None:
        """Take item ``index`` out of what is accepted; its first refusal counts."""
        if self._by_index is None:
            self._by_index = dict(self.items)
        self.reject(index, getattr(self._by_index.get(index), self._id_field, None), error)

    def reject(self, index: int, item_id: object, error: Invalid) -> None:
        """As `refuse`, for an item of which only the id may be known."""
        if index in self._refused:
            return
        self._refused.add(index)
        # Trap: what comes back must be encodable; an id with half a surrogate is not.
        shown = item_id if isinstance(item_id, str) and len(item_id) <= 256 and is_clean(item_id) else None
        self.rejected.append(Rejection(index, shown, error.code, error.field, error.reason))

    @property
    def accepted(self) -> int:
        """How many items are still good."""
        return self.total - len(self._refused)

    def nothing_accepted(self) -> Refused:
        """The 422 for a batch that is empty or all bad: raise it."""
        if not self.total:
            errors = [FieldError(self._prefix or "", "missing", "the batch is empty")]
            return Refused(422, "missing", "the batch is empty", errors)
        self.rejected.sort(key=lambda rejection: rejection.index)
        errors = [FieldError(self._where(r), r.code, r.reason) for r in self.rejected]
        codes = {error.code for error in errors}
        code = codes.pop() if len(codes) == 1 else "invalid"
        detail = f"none of {self.total} items could be accepted" if self.total > 1 else errors[0].reason
        return Refused(422, code, detail, errors, more={"accepted": 0, "rejected": self.rejected})

    def answer(self, position: str | None, status: int = 202, **more: Any) -> Response:
        """``{accepted, rejected, position}`` and ``more``; raises the 422 where nothing was accepted."""
        accepted = self.accepted
        if not accepted:
            raise self.nothing_accepted()
        self.rejected.sort(key=lambda rejection: rejection.index)
        body = {"accepted": accepted, "rejected": self.rejected, "position": position, **more}
        return Answer(body, status)

    def _where(self, rejection: Rejection) -> str:
        at = "" if self._prefix is None else f"{self._prefix}/{rejection.index}"
        return at + rejection.field


class BatchDecoder(Generic[T]):
    """Reads batches of one type of item. Make it once.

    A good body costs one pass of msgspec and a few of memchr. Anything else is read again, value by value,
    so that each bad item is told from its good neighbours.

    Parameters
    ----------
    type_:
        Struct of an item; fields it does not have are refused (``unknown_field``).
    plural:
        Name of the list in the envelope form.
    id_field:
        What names an item in ``rejected``.
    not_supported:
        Fields of the contract that are not built yet.
    envelope:
        Members allowed beside the list, e.g. ``write_key``.
    max_item_bytes:
        How large an item may be.
    loose:
        Fields that are not known are passed over, in items and beside the list: for words that others define.
    """

    def __init__(
        self,
        type_: type[T],
        plural: str,
        *,
        id_field: str = "id",
        not_supported: frozenset[str] = frozenset(),
        envelope: frozenset[str] = frozenset(),
        max_items: int = MAX_ITEMS,
        max_item_bytes: int = MAX_ITEM_BYTES,
        loose: bool = False,
    ) -> None:
        self.type = type_
        self.plural = plural
        self.max_items = max_items
        self._max_item_bytes = max_item_bytes
        self._id_field = id_field
        self._id_name = {f.name: f.encode_name for f in msgspec.structs.fields(type_)}.get(id_field, id_field)
        self._not_supported = not_supported
        self._beside = envelope
        self._loose = loose
        self._strict = type_ if loose else strict_variant(type_)
        self._quoted = f'"{plural}"'.encode()
        self._one: msgspec.json.Decoder[T] = msgspec.json.Decoder(self._strict)
        self._many: msgspec.json.Decoder[list[T]] = msgspec.json.Decoder(list[self._strict])  # type: ignore[name-defined]
        self._sizes = msgspec.json.Decoder(list[msgspec.Raw])
        wrapped = msgspec.defstruct(
            "Wrapped",
            [("items", list[self._strict]), *((name, Any, None) for name in sorted(envelope))],  # type: ignore[name-defined]
            rename={"items": plural},
            forbid_unknown_fields=not loose,
        )
        self._wrapped: msgspec.json.Decoder[Any] = msgspec.json.Decoder(wrapped)
        weighed = msgspec.defstruct("Weighed", [("items", list[msgspec.Raw], [])], rename={"items": plural})
        self._wrapped_sizes: msgspec.json.Decoder[Any] = msgspec.json.Decoder(weighed)

    def decode(self, data: bytes, *, lines: bool = False) -> Batch[T]:
        """Read a body; raises `Refused` 400 for what is not JSON, 413 for too many items."""
        if not data or data.isspace():
            raise empty_body()
        if lines:
            return self._decode_lines(data)
        try:
            quick = self._quick(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            quick = None
        return quick if quick is not None else self._slow(data)

    def one(self, raw: object) -> Batch[T]:
        """A batch of one item that has been read into Python values already."""
        return self._sort_out([raw], None, {}, weigh=True)

    def _quick(self, data: bytes) -> Batch[T] | None:
        """The batch where nothing at all is wrong with it, else None."""
        start = data.lstrip()[:1] if data[:1].isspace() else data[:1]
        beside: Mapping[str, Any] = {}
        prefix: str | None = None
        levels = MAX_DEPTH
        if start == b"[":
            items = self._many.decode(data)
            prefix, levels = "", MAX_DEPTH + 1
        # Trap: an envelope whose list comes late would be taken for one item, all of it unknown fields.
        elif self._quoted in (data if self._loose else data[:_PEEK]):
            wrapped = self._wrapped.decode(data)
            items = wrapped.items
            beside = {name: getattr(wrapped, name) for name in self._beside}
            prefix, levels = f"/{self.plural}", MAX_DEPTH + 2
        else:
            items = [self._one.decode(data)]
        # An envelope may put items one level deeper than a member beside it: the exact look decides.
        if len(data) > self._max_item_bytes and self._oversized(data, start):
            return None
        if is_suspicious(data, levels):
            return None
        self._limit(len(items))
        return self._batch(list(enumerate(items)), len(items), prefix, beside)

    def _oversized(self, data: bytes, start: bytes) -> bool:
        items = self._sizes.decode(data) if start == b"[" else self._wrapped_sizes.decode(data).items
        # What is no list at all is one item.
        return not items or any(len(memoryview(raw)) > self._max_item_bytes for raw in items)

    def _slow(self, data: bytes) -> Batch[T]:
        raw = parse_json(data)
        beside: Mapping[str, Any] = {}
        prefix = "" if isinstance(raw, list) else None
        items = raw if isinstance(raw, list) else [raw]
        if isinstance(raw, dict) and self.plural in raw:
            items = raw[self.plural]
            if not isinstance(items, list):
                raise Invalid("wrong_type", f"{self.plural} must be a list", f"/{self.plural}")
            beside = {name: value for name, value in raw.items() if name != self.plural}
            if not self._loose:
                refuse_unknown(beside, self._beside | {self.plural}, frozenset())
            prefix = f"/{self.plural}"
        self._limit(len(items))
        return self._sort_out(items, prefix, beside, len(data) > self._max_item_bytes)

    def _sort_out(
        self, raws: Sequence[object], prefix: str | None, beside: Mapping[str, Any], weigh: bool
    ) -> Batch[T]:
        good: list[tuple[int, T]] = []
        bad: list[tuple[int, object, Invalid]] = []
        for index, raw in enumerate(raws):
            try:
                if isinstance(raw, NotJson):
                    raise raw.as_item()
                if weigh and encoded_size(raw) > self._max_item_bytes:
                    raise Invalid("too_large", f"an item may have {self._max_item_bytes} bytes")
                good.append((index, convert_item(raw, self.type, self._not_supported, loose=self._loose)))
            except Invalid as error:
                bad.append((index, raw.get(self._id_name) if isinstance(raw, dict) else None, error))
        batch = self._batch(good, len(raws), prefix, beside)
        for index, item_id, invalid in bad:
            batch.reject(index, item_id, invalid)
        return batch

    def _decode_lines(self, data: bytes) -> Batch[T]:
        rows = [row for row in data.split(b"\n") if row and not row.isspace()]
        self._limit(len(rows))
        if not is_suspicious(data, MAX_DEPTH) and max(map(len, rows)) <= self._max_item_bytes:
            try:
                return self._batch(list(enumerate(map(self._one.decode, rows))), len(rows), "", {})
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
        return self._sort_out([_parse_line(row) for row in rows], "", {}, weigh=True)

    def _batch(
        self, items: list[tuple[int, T]], total: int, prefix: str | None, beside: Mapping[str, Any]
    ) -> Batch[T]:
        return Batch(items, total, self._id_field, prefix, beside)

    def _limit(self, count: int) -> None:
        if count > self.max_items:
            detail = f"a batch may have {self.max_items} items; nothing was accepted"
            raise Refused(413, "too_many_items", detail)


def _parse_line(row: bytes) -> object:
    try:
        return parse_json(row)
    except NotJson as error:
        return error
