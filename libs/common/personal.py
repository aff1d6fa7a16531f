"""Keeps out what identifies a person: before anything reaches the bus, a log or a metric.

Two questions. May this be an id (`refuse_personal`)? And what may be kept of free data (`Screen`)? Fields
whose name says that they hold a name, an address, an e-mail address, a phone number, a birthday, an IP
address, a place on the map or a credential are dropped; e-mail addresses, phone numbers and IP addresses
inside of other texts are masked. A name within free text cannot be told from any other word.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import blake2b
from itertools import pairwise
from typing import Any

from libs.common.errors import Invalid

KINDS_OF_JOIN = ("email", "phone")
"""What may be kept as a keyed hash, where records are to be joined by it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SAFE, _ID, _THING, _PERSONAL, _EMAIL, _PHONE = range(6)
"""What the name of a field says: nothing; an id; a thing, whose name is nobody's; and what is dropped."""

_ANYWHERE = _words(
    "firstname lastname fullname surname forename vorname nachname birth birthday birthdate birthplace "
    "dob geburtsdatum geburtstag street strasse straße hausnummer housenumber iban ssn passport password "
    "passwort msisdn telephone telefon handy zipcode postcode plz postleitzahl idfa idfv gaid imei "
    "latitude longitude useragent username nickname adresse anschrift"
)
"""Words that make a field personal wherever they stand in its name."""

_AT_END = _words(
    "email phone mobile mobil cell tel fax whatsapp address addr zip ip ipv4 ipv6 lat lng lon avatar "
    "postalcode useragent phonenumber creditcard cardnumber taxid deviceid advertisingid socialsecurity"
)
"""Words that do so at its end; numbers and fillers behind them do not count."""

_FILLERS = _words("number no nr nummer line value raw string digits full")
_JOINED = {
    "email": _EMAIL,
    "emailaddress": _EMAIL,
    "phone": _PHONE,
    "phonenumber": _PHONE,
    "mobile": _PHONE,
    "mobil": _PHONE,
    "cell": _PHONE,
    "telephone": _PHONE,
    "telefon": _PHONE,
    "handy": _PHONE,
    "msisdn": _PHONE,
    "whatsapp": _PHONE,
    "tel": _PHONE,
}

_OF_A_PERSON = _words(
    "first last full given family middle maiden sur nick user display customer client contact recipient "
    "sender billing shipping delivery invoice agent author owner holder card person visitor member "
    "patient guest reviewer caller driver technician employee legal seller buyer bidder payer kunde "
    "kunden"
)
"""What stands before ``name`` where it is a person's."""

_THINGS = _words(
    "product products item items line lines category categories campaign promotion promotions app library "
    "os page screen list lists brand store asset assets coupon coupons kit kits offer offers listing lot"
)
"""Objects whose ``name`` is theirs: ``products[0].name`` is no person's."""

_IDS = _words("id ids sku ean gtin upc mpn isbn key serial order article version hash sha256 md5 token")
_TOKENS = re.compile(r"[A-Z]+(?![a-zß])|[A-Z]?[a-zäöüß]+")

_AT = r"(?:@|%40|＠)"
_LOCAL = r"\s@＠<>\"',;:=/?&()\[\]"
# Trap: begins where a word begins and never gives back, or long texts would take quadratic time.
_EMAILS = re.compile(
    rf"(?<![^{_LOCAL}])(?:[^{_LOCAL}%]|%(?!40))++{_AT}[^\s@<>\"',;:/?&()\[\]%]+\.[^\W\d_]{{2,}}"
)
_FOREIGN = r"(?:\+|(?<!\w)00(?=[1-9]\d?\d?[ ()/.-]))[1-9](?:[ ()/.-]{0,3}\d){6,14}(?!\d)"
_NATIONAL = r"(?<![\w.+-])\(?0[1-9]\d{1,4}\)?[ /-]{1,3}\d{2,}(?:[ /-]?\d{2,}){0,4}(?![\w])"
_PAIRS = r"(?<![\w.+-])0[1-9](?:[ .-]\d\d){4}(?!\w)"
_AMERICAN = r"(?<![\w.+-])(?:1[ .-])?\(?[2-9]\d\d\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?![\w-])"
_PHONES = re.compile("|".join((_FOREIGN, _NATIONAL, _PAIRS, _AMERICAN)))
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4S = re.compile(rf"(?<![\w.])({_BYTE}(?:\.{_BYTE}){{2}})\.{_BYTE}(?![\w.]*\d)")
_IPV6S = re.compile(
    r"(?<![\w:])(?:(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,6}(?![\w:])"
    r"|(?:[0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f:]*)"
)
_CLOCK = re.compile(r"\d\d:\d\d(?::\d\d)?\Z")
_QUERY = re.compile(
    r"([?&;#](?:[\w.\-\[\]%]*(?:e-?mail|phone|tel|name|address|street|birth\w*|zip|postcode|plz|token))=)[^&#\s]*",
    re.IGNORECASE,
)
_CLOSER = re.compile(r"[@%+＠]|\d\)?[ ./()-]+\d\d|:[0-9A-Fa-f]*:|[?&;#]\w")
"""A text without any of this holds nothing that is masked."""

_PHONE_STARTS = frozenset("+(0123456789")
_MOST_NAMES = 4_096
_MOST_TEXTS = 16_384
_MOST_CHARS = 64


def refuse_personal(text: str, field: str) -> None:
    """Raise `Invalid` for an id that looks like an e-mail address, a phone number or an IP address."""
    if text.isalnum():
        return
    found = _kind_of(text)
    if found is not None:
        raise Invalid(
            "bad_string", f"{field.lstrip('/')} looks like {found}: send an id that names nobody", field
        )


def is_personal(text: str) -> bool:
    """Whether `refuse_personal` would refuse ``text``."""
    return not text.isalnum() and _kind_of(text) is not None


def _kind_of(text: str) -> str | None:
    if ("@" in text or "%40" in text or "＠" in text) and _EMAILS.search(text):
        return "an e-mail address"
    bare = text.strip().removeprefix("tel:")
    # Trap: not all patterns for all ids. Most are told by their first character, or by what is not in them.
    if bare[:1] in _PHONE_STARTS and _PHONES.fullmatch(bare):
        return "a phone number"
    if "." in bare and _IPV4S.fullmatch(bare):
        return "an IP address"
    if ":" in bare and _IPV6S.fullmatch(bare) and _CLOCK.match(bare) is None:
        return "an IP address"
    return None


class Screen:
    """Free data in, what may be kept of it out.

    Remembers what names of fields say and which short texts are clean, some thousands of each: most of what
    comes was there before. Otherwise pure.

    Parameters
    ----------
    joins:
        Which of `KINDS_OF_JOIN` stay as ``email_hash`` and ``phone_hash`` in place of the field.
    secret:
        Key of those hashes: without it nobody can try out who is meant.
    """

    def __init__(self, joins: Collection[str] = (), secret: bytes = b"") -> None:
        self._joins = {{"email": _EMAIL, "phone": _PHONE}[kind]: kind for kind in joins}
        self._secret = secret[:64]
        self._verdicts: dict[str, int] = {}
        self._clean: set[str] = set()
        self.dropped = 0
        """Fields dropped and texts masked so far."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """``data`` itself where nothing in it is personal, else a copy without that."""
        return self._object(data, False)

    def _object(self, data: dict[str, Any], thing: bool) -> dict[str, Any]:
        verdicts, clean, changed = self._verdicts, self._clean, None
        for name, value in data.items():
            verdict = verdicts.get(name)
            if verdict is None:
                verdict = self._judge(name)
            if verdict < _PERSONAL or (thing and name == "name"):
                # Trap: not isinstance. JSON brings these types and no others, and this is the hot path.
                kind = type(value)
                if kind is str:
                    if value in clean:
                        continue
                    kept: Any = self._text(value, verdict == _ID)
                elif kind is dict:
                    kept = self._object(value, verdict == _THING)
                elif kind is list:
                    kept = self._list(value, verdict)
                else:
                    continue
                if kept is value:
                    continue
                changed = dict(data) if changed is None else changed
                changed[name] = kept
            elif value is not None and type(value) is not bool:
                changed = dict(data) if changed is None else changed
                del changed[name]
                self.dropped += 1
                if verdict in self._joins and isinstance(value, str):
                    kind_of_join = self._joins[verdict]
                    changed[f"{kind_of_join}_hash"] = self.join_hash(kind_of_join, value)
        return data if changed is None else changed

    def _list(self, values: list[Any], verdict: int) -> list[Any]:
        changed = None
        for at, value in enumerate(values):
            kind = type(value)
            if kind is str:
                kept: Any = self._text(value, verdict == _ID)
            elif kind is dict:
                kept = self._object(value, verdict == _THING)
            elif kind is list:
                kept = self._list(value, verdict)
            else:
                continue
            if kept is not value:
                changed = list(values) if changed is None else changed
                changed[at] = kept
        return values if changed is None else changed

    def _text(self, text: str, is_id: bool) -> str:
        if text in self._clean:
            return text
        if text.isalnum() or _CLOSER.search(text) is None:
            self._remember(text)
            return text
        kept = text
        if "@" in text or "%40" in text or "＠" in text:
            kept = _EMAILS.sub("[e-mail]", text)
        # Trap: an id is not masked for digits and dots in it. What it names would be lost.
        if not is_id:
            kept = _IPV4S.sub(r"\1.0", _QUERY.sub(r"\1", kept))
            kept = _PHONES.sub(_masked_phone, _IPV6S.sub(_masked_ipv6, kept))
        if kept != text:
            self.dropped += 1
            return kept
        if not is_id:
            self._remember(text)
        return text

    def _remember(self, text: str) -> None:
        if len(text) <= _MOST_CHARS:
            if len(self._clean) >= _MOST_TEXTS:
                self._clean.clear()
            self._clean.add(text)

    def join_hash(self, kind: str, value: str) -> str:
        """What stands for an e-mail address or phone number, the same however it was written."""
        if kind == "email":
            plain = value.strip().lower()
        else:
            digits = "".join(char for char in value if char.isdigit())
            plain = digits[2:] if digits.startswith("00") else digits
        return blake2b(
            f"{kind}\0{plain}".encode("utf-8", "surrogatepass"), key=self._secret, digest_size=16
        ).hexdigest()

    def _judge(self, name: str) -> int:
        verdict = _judged(name)
        if len(self._verdicts) < _MOST_NAMES and len(name) <= _MOST_CHARS:
            self._verdicts[name] = verdict
        return verdict


def _judged(name: str) -> int:
    if is_personal(name):
        return _PERSONAL
    tokens = [token.lower() for token in _TOKENS.findall(name)]
    if not tokens:
        return _SAFE
    if not _ANYWHERE.isdisjoint(tokens) or not _ANYWHERE.isdisjoint(_pairs(tokens)):
        return _JOINED.get("".join(tokens[-2:]), _JOINED.get(tokens[-1], _PERSONAL))
    while len(tokens) > 1 and tokens[-1] in _FILLERS:
        tokens.pop()
    last, two = tokens[-1], "".join(tokens[-2:])
    for word in (two, last):
        if word in _AT_END or (word == "emailaddress"):
            return _JOINED.get(word, _PERSONAL)
    if last in _IDS:
        return _ID
    if last == "name":
        return _PERSONAL if len(tokens) == 1 or not _OF_A_PERSON.isdisjoint(tokens[:-1]) else _SAFE
    if tokens == ["mail"]:
        return _EMAIL
    return _THING if tokens[-1] in _THINGS else _SAFE


def _pairs(tokens: list[str]) -> list[str]:
    return [a + b for a, b in pairwise(tokens)]


def _masked_phone(match: re.Match[str]) -> str:
    digits = sum(char.isdigit() for char in match[0])
    return "[phone]" if 7 <= digits <= 15 else match[0]


def _masked_ipv6(match: re.Match[str]) -> str:
    # Trap: a time of day has colons, too.
    return match[0] if _CLOCK.match(match[0]) else "[ip]"
