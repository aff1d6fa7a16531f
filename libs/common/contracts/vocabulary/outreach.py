"""E-mail and direct mail: what goes out to customers, and what comes back."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from libs.common.contracts.vocabulary.values import Grade, Name, TouchpointType


class Mail(Struct, frozen=True):
    """An e-mail; ``campaign_id`` is the mailing, ``email_id`` this one piece of it."""

    campaign_id: Name | None = None
    email_id: Name | None = None
    link_id: str | None = None
    link_url: str | None = None
    reason: str | None = None


class Bounce(Struct, frozen=True):
    """An e-mail that came back: ``hard`` for good, ``soft`` for now."""

    bounce_type: Literal["hard", "soft"] = "hard"
    campaign_id: Name | None = None
    email_id: Name | None = None
    reason: str | None = None


class DirectMail(Struct, frozen=True):
    """A letter, catalogue or post-card."""

    campaign_id: Name | None = None
    piece_id: Name | None = None
    reason: str | None = None


class Reply(Struct, frozen=True):
    """A card that came back or a code that was scanned; ``code`` is what was printed."""

    code: Name | None = None
    campaign_id: Name | None = None
    product_id: Name | None = None
    asset_id: Name | None = None
    rating: Grade | None = None


_MAIL = {"campaign_id": "spring", "email_id": "spring-7"}
_LINK = {**_MAIL, "link_id": "hero", "link_url": "https://shop.example/coffee"}
_PIECE = {"campaign_id": "catalogue-2026", "piece_id": "k-77"}
_CARD = {"code": "A7KQ", "product_id": "grinder", "rating": 9}

TYPES = (
    TouchpointType("email_sent", "email", Mail, "An e-mail was sent to him.", _MAIL, outbound=True),
    TouchpointType("email_delivered", "email", Mail, "His mail server took it.", _MAIL, outbound=True),
    TouchpointType("email_opened", "email", Mail, "He opened it.", _MAIL),
    TouchpointType("email_clicked", "email", Mail, "He clicked a link in it.", _LINK),
    TouchpointType(
        "email_bounced",
        "email",
        Bounce,
        "It came back.",
        {**_MAIL, "bounce_type": "hard", "reason": "no such mailbox"},
        outbound=True,
    ),
    TouchpointType("email_complained", "email", Mail, "He called it spam.", _MAIL),
    TouchpointType("email_unsubscribed", "email", Mail, "He wants no more of them.", _MAIL),
    TouchpointType("direct_mail_sent", "post", DirectMail, "Something was posted.", _PIECE, outbound=True),
    TouchpointType(
        "direct_mail_returned",
        "post",
        DirectMail,
        "It could not be delivered.",
        {**_PIECE, "reason": "moved"},
        outbound=True,
    ),
    TouchpointType("card_returned", "post", Reply, "He sent the card from the box back.", _CARD),
    TouchpointType("code_scanned", "post", Reply, "He scanned or typed a printed code.", {"code": "A7KQ"}),
)
