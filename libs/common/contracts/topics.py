"""The topics, with the settings they must have on a real Kafka."""

from __future__ import annotations

from libs.common.bus.ports import TopicSpec
from libs.common.clock import DAY, Millis
from libs.common.contracts.identity import PARTITIONS

CUSTOMER_EVENTS = "customer-events"
CUSTOMER_MODELS = "customer-models"
LEARNED_MODELS = "learned-models"
CATALOGUE = "catalogue"
PROGRESS = "progress"
DEAD_LETTERS = "dead-letters"

_JOURNAL = {
    "cleanup.policy": "delete",
    "retention.ms": str(30 * DAY),
    "message.timestamp.type": "LogAppendTime",
}
TOMBSTONES_KEPT: Millis = 30 * DAY
"""For which a deletion can still be read from a compacted topic; who was away for longer must begin anew."""

_COMPACTED = {
    "cleanup.policy": "compact",
    "delete.retention.ms": str(TOMBSTONES_KEPT),
    "message.timestamp.type": "LogAppendTime",
}

TOPICS = (
    TopicSpec(CUSTOMER_EVENTS, PARTITIONS, _JOURNAL),
    TopicSpec(CUSTOMER_MODELS, PARTITIONS, _COMPACTED),
    TopicSpec(LEARNED_MODELS, 1, _COMPACTED),
    TopicSpec(CATALOGUE, 1, _COMPACTED),
    TopicSpec(PROGRESS, 1, _COMPACTED),
    TopicSpec(DEAD_LETTERS, PARTITIONS, _JOURNAL),
)

HEADER_SCHEMA = "schema"
HEADER_SPOOL = "spool"
HEADER_SEQ = "seq"
HEADER_REVISION = "revision"
HEADER_DROPPED = "dropped"
"""With the deletion of a model: nobody was erased, he may come back."""
HEADER_FLOOR = "floor"
"""With the first record of a spool after a (re)start and with each one sent on suspicion: highest number the
analyzer has confirmed to the spool before, in decimal. Only there may the numbers of a spool begin late."""
