"""People who talk to customers: calls, service cases, surveys, visits."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from libs.common.contracts.vocabulary.values import Grade, Name, Seconds, TouchpointType, When


class Conversation(Struct, frozen=True):
    """A call: how it ended (``do_not_call`` is an objection), and which agent had it, by pseudonym."""

    direction: Literal["in", "out"] = "in"
    reason: str | None = None
    disposition: str | None = None
    duration_seconds: Seconds | None = None
    wait_seconds: Seconds | None = None
    agent_id: str | None = None
    case_id: Name | None = None
    campaign_id: Name | None = None
    rating: Grade | None = None


class Case(Struct, frozen=True):
    """A service case or complaint."""

    case_id: Name
    reason: str | None = None
    category: str | None = None
    priority: str | None = None
    product_id: Name | None = None
    asset_id: Name | None = None
    order_id: Name | None = None
    resolution: str | None = None
    resolved: bool | None = None


class SurveyAnswer(Struct, frozen=True):
    """An answer to a survey: ``rating`` from 0 (worst) to 10 (best)."""

    rating: Grade | None = None
    case_id: str | None = None
    survey_id: str | None = None
    order_id: str | None = None


class SurveyRequest(Struct, frozen=True):
    """A question that was put to him."""

    survey_id: str | None = None
    case_id: str | None = None
    order_id: str | None = None


class Visit(Struct, frozen=True):
    """Somebody of ours went to see him (channels ``sales``, ``field_service``), or he has an appointment."""

    visit_id: Name | None = None
    reason: str | None = None
    outcome: str | None = None
    scheduled_for: When | None = None
    duration_seconds: Seconds | None = None
    agent_id: str | None = None
    case_id: Name | None = None
    asset_id: Name | None = None
    rating: Grade | None = None


class StoreVisit(Struct, frozen=True):
    """He came to a store."""

    store_id: str | None = None
    duration_seconds: Seconds | None = None
    agent_id: str | None = None


_CALL = {"direction": "in", "reason": "delivery", "case_id": "s-9", "agent_id": "a-12"}
_CASE = {"case_id": "s-9", "reason": "leaks", "product_id": "grinder"}
_VISIT = {"visit_id": "v-3", "reason": "maintenance", "asset_id": "m-1"}
_ASKED = {"survey_id": "after-case", "case_id": "s-9"}

TYPES = (
    TouchpointType("call_started", "call_centre", Conversation, "A call began.", _CALL),
    TouchpointType(
        "call_ended",
        "call_centre",
        Conversation,
        "A call ended.",
        {**_CALL, "disposition": "resolved", "duration_seconds": 312, "rating": 8},
    ),
    TouchpointType(
        "call_missed",
        "phone",
        Conversation,
        "Nobody answered: we (in) or he (out).",
        {"direction": "out", "reason": "renewal", "campaign_id": "renewals"},
    ),
    TouchpointType("case_opened", "service", Case, "He has a problem.", _CASE),
    TouchpointType("case_escalated", "service", Case, "It went higher up.", {**_CASE, "priority": "high"}),
    TouchpointType("case_reopened", "service", Case, "It was not solved after all.", _CASE),
    TouchpointType(
        "case_closed",
        "service",
        Case,
        "It is settled.",
        {**_CASE, "resolution": "replaced", "resolved": True},
    ),
    TouchpointType("survey_sent", "email", SurveyRequest, "He was asked.", _ASKED, outbound=True),
    TouchpointType("survey_answered", "email", SurveyAnswer, "He answered.", {**_ASKED, "rating": 9}),
    TouchpointType(
        "visit_scheduled",
        "field_service",
        Visit,
        "A visit was agreed.",
        {**_VISIT, "scheduled_for": "2026-05-04T09:00:00Z"},
    ),
    TouchpointType(
        "visit_completed",
        "field_service",
        Visit,
        "The visit took place.",
        {**_VISIT, "outcome": "serviced", "duration_seconds": 5400, "rating": 10},
    ),
    TouchpointType("visit_cancelled", "field_service", Visit, "It did not.", {**_VISIT, "outcome": "no_one"}),
    TouchpointType("store_visited", "store", StoreVisit, "He came to a store.", {"store_id": "berlin-2"}),
)
