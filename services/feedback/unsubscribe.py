"""One click and no more of it: ``/u/{token}``, for links in mails and their header (RFC 8058)."""

from __future__ import annotations

from starlette.responses import HTMLResponse, Response

from libs.common.http.calls import Call
from libs.common.http.factory import HttpApp
from libs.common.journal import Durability
from services.feedback.handlers import Feedback
from services.feedback.metrics import FeedbackMetrics
from services.feedback.model import OutcomeIn

PATH = "/u/{token}"
WORD = "unsubscribed"

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    # The address holds the token.
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>Unsubscribe</title>%s</html>'
)
_ASK = _PAGE % (
    '<p>You will get no more offers this way.</p><form method="post"><button>Unsubscribe</button></form>'
)
_DONE = _PAGE % "<p>You are unsubscribed.</p>"


def add_unsubscribe(app: HttpApp, feedback: Feedback, metrics: FeedbackMetrics) -> None:
    """A page that asks, and what its button and mail programs post."""

    async def ask(call: Call) -> Response:
        # Trap: nothing is done here. Scanners of mail follow every link in it.
        feedback.on_outcome(_said(call), with_key=False)
        return HTMLResponse(_ASK, headers=_HEADERS)

    async def unsubscribe(call: Call) -> Response:
        event = feedback.on_outcome(_said(call), with_key=False)
        await feedback.durable(feedback.append([event]), Durability.SPOOL)
        metrics.accepted.add(1, WORD)
        return HTMLResponse(_DONE, headers=_HEADERS)

    app.endpoint("GET", PATH, ask, summary="A page that asks whether to unsubscribe")
    app.endpoint("POST", PATH, unsubscribe, summary="Unsubscribe at once from the channel of an offer")


def _said(call: Call) -> OutcomeIn:
    return OutcomeIn(outcome=WORD, token=call.path["token"])
