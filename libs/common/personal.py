"""Keeps out what identifies a person: before anything reaches the bus, a log or a metric.

Two questions. May this be an id (`refuse_personal`, `refuse_email`)? And what may be kept of free data
(`Screen`)? Fields
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


_SAFE, _THING, _ID, _PERSONAL, _EMAIL, _PHONE = 0, 1, 2, 4, 5, 6
"""What the name of a field says: nothing; a thing, whose name is nobody's; an id (3: both); what goes."""

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
    "os page screen list lists brand store asset assets coupon coupons kit kits offer offers listing lot "
    "cart basket bundle bundles plan plans variant variants article articles part parts shop event experiment"
)
"""Objects whose ``name`` is theirs: ``products[0].name`` is no person's."""

_IDS = _words(
    "id ids sku ean gtin upc mpn isbn key serial order article articles version firmware hash sha256 md5 "
    "token code codes kit kits part parts product products category categories invoice case reference "
    "coupon coupons variant variants slot slots dims size sizes dimension dimensions barcode"
)
"""What has digits, dots and dashes in it that are no phone number and no address."""
_TOKENS = re.compile(r"[A-Z]+(?![a-zß])|[A-Z]?[a-zäöüß]+")

# Trap: every pattern begins where a word begins and never gives back what may be long, or adversarial texts
# would take quadratic time and worse. Whoever changes one asks `test_time_is_linear_in_the_text`.
_AT = r"(?:@|%(?:25)*+40|＠)"
_LOCAL = r"\s@＠<>\"',;:=/?&()\[\]"
_EMAILS = re.compile(
    rf"(?<![^{_LOCAL}])(?:[^{_LOCAL}%]|%(?!(?:25)*+40))++{_AT}[^\s@＠<>\"',;:/?&()\[\]%]+\."
    r"(?!(?i:png|jpe?g|gif|webp|avif|svg)\b)[^\W\d_]{2,}"
)
_BLANKS = r" \t\xa0\u2000-\u200a\u202f"
_DASHES = r"\u2010-\u2013·-"
_ANY = rf"{_BLANKS}()/.{_DASHES}"
_START = r"(?<![\w.+/=-])"
_FOREIGN = rf"(?<![\w+/=])(?:\+|00(?=[1-9]\d?\d?[{_ANY}]))[1-9](?:[{_ANY}]{{0,3}}\d){{6,14}}(?!\d)"
_NATIONAL = (
    rf"{_START}\(?0[1-9]\d{{1,4}}\)?[{_BLANKS}/{_DASHES}]{{1,3}}"
    rf"\d{{2,}}+(?:[{_BLANKS}/{_DASHES}]\d{{2,}}+){{0,4}}(?!\w)"
)
_PAIRS = rf"{_START}0[1-9](?:[{_BLANKS}.{_DASHES}]\d\d){{4}}(?!\w)"
_AMERICAN = (
    rf"{_START}(?:1[{_BLANKS}.{_DASHES}])?\(?[2-9]\d\d\)?[{_BLANKS}.{_DASHES}]{{1,2}}"
    rf"\d{{3}}[{_BLANKS}.{_DASHES}]\d{{4}}(?![\w-])"
)
_ABROAD = re.compile(_FOREIGN)
_PHONES = re.compile("|".join((_FOREIGN, _NATIONAL, _PAIRS, _AMERICAN)))
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4S = re.compile(rf"(?<![\w.])({_BYTE}(?:\.{_BYTE}){{2}})\.{_BYTE}(?![\w.]*\d)")
_OWN_NETS = re.compile(r"(?:0|10|127|169\.254|192\.168|172\.(?:1[6-9]|2\d|3[01])|22[4-9]|2[34]\d|25\d)\.")
"""What an address that many have begins with: it names nobody."""
_IPV6S = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}+:){2,8}+[0-9A-Fa-f]{0,4}+(?![\w:])")
_PARAMETER = re.compile(r"[?&;#]([\w.\-\[\]%]{1,64}+)=")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_VALUE = re.compile(r"[^&#\s]*")
_PAGING = _words("page next cursor continuation sync")
"""What stands before ``token`` where it is no credential."""
_CLOSER = re.compile(rf"[@%+＠]|\d\)?[{_ANY}]+\d\d|\d\.\d{{1,3}}\.\d|:[0-9A-Fa-f]*+:|[?&;#]\w")
"""A text without any of this holds nothing that is masked."""

_MAY_BE_PERSONAL = re.compile(r"[@＠%+.:]|\A\s*00")
"""An id without any of this names nobody: most have letters, digits and dashes only."""

_MOST_NAMES = 4_096
_MOST_TEXTS = 16_384
_MOST_CHARS = 64


def refuse_personal(text: str, field: str) -> None:
    """Raise `Invalid` for the id of a customer, visitor or account that names a person without doubt.

    E-mail addresses, phone numbers with the code of a country, and public IP addresses: what has a shorter
    form, ``0170-123456``, may as well be the number of a customer.
    """
    if not text.isalnum() and _MAY_BE_PERSONAL.search(text) is not None:
        _refuse(_kind_of(text), field)


def refuse_email(text: str, field: str) -> None:
    """Raise `Invalid` for another id that holds an e-mail address: an order's may look like a phone."""
    if not text.isalnum() and is_email(text):
        _refuse("an e-mail address", field)


def is_email(text: str) -> bool:
    """Whether `refuse_email` would refuse ``text``."""
    return _may_hold_email(text) and _EMAILS.search(text) is not None


def _refuse(found: str | None, field: str) -> None:
    if found is not None:
        raise Invalid(
            "bad_string", f"{field.lstrip('/')} looks like {found}: send an id that names nobody", field
        )


def _may_hold_email(text: str) -> bool:
    return "@" in text or "＠" in text or ("%" in text and "40" in text)


def _kind_of(text: str) -> str | None:
    if is_email(text):
        return "an e-mail address"
    bare = text.strip()
    phones = _PHONES if bare.startswith("tel:") else _ABROAD
    found = phones.fullmatch(bare.removeprefix("tel:"))
    if found is not None and _is_phone(found):
        return "a phone number"
    if "." in bare and _IPV4S.fullmatch(bare) and _OWN_NETS.match(bare) is None:
        return "an IP address"
    if ":" in bare and (found := _IPV6S.fullmatch(bare)) is not None and _is_ipv6(found):
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
        Key of those hashes, and of what stands for e-mail addresses in ids: without it nobody can try out
        who is meant.
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
            if verdict == _PERSONAL and name == "name" and (thing or self._is_product(data)):
                verdict = _ID
            if verdict < _PERSONAL:
                # Trap: not isinstance. JSON brings these types and no others, and this is the hot path.
                kind = type(value)
                if kind is str:
                    if value in clean:
                        continue
                    kept: Any = self._text(value, bool(verdict & _ID))
                elif kind is dict:
                    kept = self._object(value, bool(verdict & _THING))
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

    def _is_product(self, data: dict[str, Any]) -> bool:
        """Whether ``name`` in ``data`` is the product's: no e-mail address and no phone stands beside it."""
        return "product_id" in data and all(self._verdict(name) <= _PERSONAL for name in data)

    def _list(self, values: list[Any], verdict: int) -> list[Any]:
        changed = None
        for at, value in enumerate(values):
            kind = type(value)
            if kind is str:
                kept: Any = self._text(value, bool(verdict & _ID))
            elif kind is dict:
                kept = self._object(value, bool(verdict & _THING))
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
        if _may_hold_email(text):
            # Trap: an id that became a constant would make one customer or account of many.
            kept = _EMAILS.sub(self._hashed if is_id else "[e-mail]", text)
        # Trap: an id is not masked for digits and dots in it. What it names would be lost.
        if is_id:
            kept = _ABROAD.sub(self._hashed_phone, kept)
        else:
            kept = _IPV4S.sub(r"\1.0", self._without_values(kept))
            kept = _PHONES.sub(_masked_phone, _IPV6S.sub(_masked_ipv6, kept))
        if kept != text:
            self.dropped += 1
            return kept
        if not is_id:
            self._remember(text)
        return text

    def _hashed(self, match: re.Match[str]) -> str:
        return self.join_hash("email", match[0])

    def _hashed_phone(self, match: re.Match[str]) -> str:
        # An order may be numbered like a phone. What says more than that is no number.
        alone = match[0].strip() == match.string.strip() or not _is_phone(match)
        return match[0] if alone else self.join_hash("phone", match[0])

    def _without_values(self, text: str) -> str:
        """``text`` without what follows the parameters of addresses whose name says something personal."""
        parts, at = [], 0
        for match in _PARAMETER.finditer(text):
            # Trap: an address may hold another one, so only values that are dropped are passed over.
            if match.start() < at or not self._is_secret(_ENCODED.sub("_", match[1])):
                continue
            parts.append(text[at : match.end()])
            value = _VALUE.match(text, match.end())
            at = value.end() if value is not None else match.end()
        return "".join((*parts, text[at:])) if parts else text

    def _is_secret(self, parameter: str) -> bool:
        if self._verdict(parameter) >= _PERSONAL:
            return True
        tokens = _tokens(parameter)
        return tokens[-1:] == ["token"] and _PAGING.isdisjoint(tokens)

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

    def _verdict(self, name: str) -> int:
        known = self._verdicts.get(name)
        return self._judge(name) if known is None else known

    def _judge(self, name: str) -> int:
        verdict = _judged(name)
        if len(self._verdicts) < _MOST_NAMES and len(name) <= _MOST_CHARS:
            self._verdicts[name] = verdict
        return verdict


def _judged(name: str) -> int:
    if not name.isalnum() and _kind_of(name) is not None:
        return _PERSONAL
    tokens = _tokens(name)
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
    if last == "name":
        if len(tokens) == 1 or not _OF_A_PERSON.isdisjoint(tokens[:-1]):
            return _PERSONAL
        return _SAFE if _THINGS.isdisjoint(tokens[:-1]) else _ID
    if tokens == ["mail"]:
        return _EMAIL
    return (_THING if last in _THINGS else _SAFE) | (_ID if last in _IDS else _SAFE)


def _tokens(name: str) -> list[str]:
    return [token.lower() for token in _TOKENS.findall(name)]


def _pairs(tokens: list[str]) -> list[str]:
    return [a + b for a, b in pairwise(tokens)]


def _is_phone(match: re.Match[str]) -> bool:
    return 7 <= sum(char.isdigit() for char in match[0]) <= 15


def _masked_phone(match: re.Match[str]) -> str:
    return "[phone]" if _is_phone(match) else match[0]


def _is_ipv6(match: re.Match[str]) -> bool:
    # Trap: times of day, ratios, hardware addresses and words have colons, too.
    groups = match[0].split(":")
    said = sum(map(bool, groups))
    whole = len(groups) == 8 and said == 8
    return (whole or ("::" in match[0] and 3 <= said < 8)) and any(map(str.isdigit, match[0]))


def _masked_ipv6(match: re.Match[str]) -> str:
    return "[ip]" if _is_ipv6(match) else match[0]
