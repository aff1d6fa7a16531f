"""HTTP to handler and back."""

from __future__ import annotations

from starlette.responses import Response

from libs.common.contracts.customer_event import Outcome
from libs.common.errors import Invalid
from libs.common.http.batches import Batch, BatchDecoder
from libs.common.http.calls import Call, Handler
from libs.common.http.durability import DurableAnswer, asked_level, durable_answer
from libs.common.http.factory import HttpApp
from libs.common.http.problems import Refused
from libs.common.journal import Durability
from libs.common.keys import Scope
from services.feedback.errors import KeyNeeded
from services.feedback.handlers import Feedback
from services.feedback.metrics import FeedbackMetrics
from services.feedback.model import OutcomeIn


def add_routes(app: HttpApp, feedback: Feedback, metrics: FeedbackMetrics) -> None:
    """Everything feedback answers."""
    outcomes = BatchDecoder(OutcomeIn, "outcomes")
    app.endpoint(
        "POST",
        "/v1/outcomes",
        post_outcomes(outcomes, feedback, metrics),
        scope=Scope.FEEDBACK,
        key_optional=True,
        takes=outcomes,
        gives=DurableAnswer,
        status=202,
        lenient=True,
        summary="Report what came of offers",
    )
    app.not_supported("GET", "/v1/outcomes/stream", "the stream of outcomes", scope=Scope.FEEDBACK)
    app.not_supported("POST", "/v1/surveys", "the survey of a case", scope=Scope.FEEDBACK)
    for path, what in (
        ("/o/{token}.gif", "the picture of an offer"),
        ("/c/{token}", "the link of an offer"),
        ("/s/{token}", "the survey of a case"),
        ("/r/{code}", "the code of a card"),
    ):
        app.not_supported("GET", path, what)
    for provider in ("sendgrid", "mailgun", "postmark", "standard"):
        app.not_supported("POST", f"/v1/webhooks/{provider}", f"the webhook {provider}")


def post_outcomes(decoder: BatchDecoder[OutcomeIn], feedback: Feedback, metrics: FeedbackMetrics) -> Handler:
    """The endpoint for outcomes: with a key, or with tokens alone."""

    async def post(call: Call) -> Response:
        asked = asked_level(call)
        batch = decoder.decode(call.body, lines=call.lines)
        events = _events(batch, feedback, with_key=call.key is not None)
        for rejection in batch.rejected:
            metrics.rejected.add(1, rejection.code)
        if not events:
            raise batch.nothing_accepted()
        position = feedback.append(events)
        reached = await feedback.durable(position, asked or Durability.SPOOL)
        for event in events:
            metrics.accepted.add(1, event.outcome)
        return durable_answer(batch, position, asked, reached)

    return post


def _events(batch: Batch[OutcomeIn], feedback: Feedback, *, with_key: bool) -> list[Outcome]:
    """One item that needs a key refuses the request as a whole, before anything is written."""
    events: list[Outcome] = []
    for index, item in batch.items:
        try:
            events.append(feedback.on_outcome(item, with_key))
        except KeyNeeded:
            raise Refused(
                401, "key_missing", "without a key a token may report only what a browser can see"
            ) from None
        except Invalid as error:
            batch.refuse(index, error)
    return events
