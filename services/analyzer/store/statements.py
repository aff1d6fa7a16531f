"""The statements of a slice: SCHEMA stands for the schema, STATE_COLUMNS for those of a partition's row."""

from __future__ import annotations

STATE_COLUMNS = (
    "partition, epoch, cluster_id, next_offset, number, journal_time, applied, counters, notes,"
    " published, models_offset, leaves, losses"
)

LETTER_COLUMNS = (
    "partition, cluster_id, log_offset, spool, seq, source, code, reason, journal_time, key, value"
)
BURIED_COLUMNS = f"id, asked, attempts, replayed_at, {LETTER_COLUMNS}"
LISTED_COLUMNS = BURIED_COLUMNS.removesuffix("key, value") + "''::bytea AS key, NULL::bytea AS value"
WAITING_COLUMNS = "partition, customer, decision, hash, journal_time, body"

_STATEMENTS = {
    "found": """
        INSERT INTO SCHEMA.partitions (partition, epoch, generation, cluster_id, next_offset, number,
            journal_time, applied, counters, notes, models_offset, published)
        VALUES ($1, 0, -1, $2, 0, 0, 0, '{}', '{}', '{}', 0, 0) ON CONFLICT DO NOTHING""",
    "lock": """
        SELECT cluster_id, generation, extract(epoch FROM now() - touched_at)::float8 AS silent
        FROM SCHEMA.partitions WHERE partition = $1 FOR UPDATE""",
    # Another cluster is empty: its offsets begin at 0, and all models are to be published again.
    "claim": """
        UPDATE SCHEMA.partitions SET epoch = epoch + 1, generation = $2, cluster_id = $3,
            losses = losses + CASE WHEN $4 = 'same' THEN 0 ELSE 1 END,
            touched_at = now(), next_offset = CASE WHEN $4 = 'same' THEN next_offset ELSE 0 END,
            models_offset = CASE WHEN $4 = 'same' THEN models_offset ELSE 0 END,
            published = CASE WHEN $4 = 'same' THEN published ELSE 0 END
        WHERE partition = $1 RETURNING STATE_COLUMNS""",
    "seize": """
        UPDATE SCHEMA.partitions SET epoch = epoch + 1 WHERE partition = $1 RETURNING STATE_COLUMNS""",
    "load": "SELECT STATE_COLUMNS FROM SCHEMA.partitions WHERE partition = $1",
    "known": """
        SELECT hash, journal_time, content FROM SCHEMA.event_ids
        WHERE partition = $1 AND hash = ANY($2)""",
    "decided": """
        SELECT spool, sum(count)::bigint AS amount FROM SCHEMA.fates
        WHERE partition = $1 AND spool = ANY($2) GROUP BY spool""",
    "models": """
        SELECT partition, customer, part, revision, body FROM SCHEMA.models
        WHERE partition = $1 AND customer = ANY($2) AND body <> ''::bytea
        UNION ALL SELECT partition, customer, 'trials/' || decision, number, body FROM SCHEMA.trials
        WHERE partition = $1 AND customer = ANY($2)""",
    "unpublish": """
        UPDATE SCHEMA.partitions SET epoch = epoch + 1, published = 0, models_offset = 0, losses = losses + 1
        WHERE partition = $1 AND epoch = $2""",
    "rewind": "UPDATE SCHEMA.partitions SET next_offset = $3 WHERE partition = $1 AND epoch = $2",
    "unpublished": """
        SELECT partition, customer, part, revision, body, dropped FROM SCHEMA.models
        WHERE partition = $1 AND revision > $2 AND (customer, part) > ($3, $4)
        ORDER BY customer, part LIMIT $5""",
    "waiting": f"""
        SELECT {WAITING_COLUMNS} FROM SCHEMA.waiting_outcomes
        WHERE partition = $1 AND (customer, decision) IN (SELECT * FROM unnest($2::text[], $3::text[]))
        ORDER BY journal_time, hash""",
    "wait": f"""
        INSERT INTO SCHEMA.waiting_outcomes ({WAITING_COLUMNS})
        SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[])
        ON CONFLICT DO NOTHING""",
    "meet": """
        DELETE FROM SCHEMA.waiting_outcomes WHERE partition = $1
        AND (customer, decision, hash) IN (SELECT * FROM unnest($2::text[], $3::text[], $4::bytea[]))""",
    "give_up": "DELETE FROM SCHEMA.waiting_outcomes WHERE partition = $1 AND journal_time < $2",
    "asked": f"""
        SELECT {BURIED_COLUMNS} FROM SCHEMA.dead_letters WHERE partition = $1 AND asked
        ORDER BY id LIMIT $2""",
    "replayed": """
        UPDATE SCHEMA.dead_letters AS letter SET asked = false, attempts = attempts + 1,
            replayed_at = CASE WHEN outcome.code = '' THEN $2::bigint END,
            code = CASE WHEN outcome.code = '' THEN letter.code ELSE outcome.code END,
            reason = CASE WHEN outcome.code = '' THEN letter.reason ELSE outcome.reason END
        FROM unnest($3::bigint[], $4::text[], $5::text[]) AS outcome (id, code, reason)
        WHERE letter.partition = $1 AND letter.id = outcome.id""",
    "dead_letters": """
        INSERT INTO SCHEMA.dead_letters (partition, cluster_id, log_offset, spool, seq, source, code,
            reason, journal_time, key, value)
        SELECT * FROM unnest($1::smallint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[],
            $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bytea[], $11::bytea[])""",
    "forget_ids": """
        DELETE FROM SCHEMA.event_ids WHERE partition = $1 AND ctid = ANY(ARRAY(
            SELECT ctid FROM SCHEMA.event_ids WHERE partition = $1 AND journal_time < $2 LIMIT $3))""",
    "forget_letters": """
        DELETE FROM SCHEMA.dead_letters WHERE partition = $1 AND ctid = ANY(ARRAY(
            SELECT ctid FROM SCHEMA.dead_letters
            WHERE partition = $1 AND journal_time < $2 AND sent LIMIT $3))""",
    "days": "SELECT day FROM SCHEMA.event_days WHERE day = ANY($1)",
}


def statements(schema: str) -> dict[str, str]:
    """All statements for the tables in ``schema``, by name."""
    return {
        name: text.replace("SCHEMA.", f"{schema}.").replace("STATE_COLUMNS", STATE_COLUMNS)
        for name, text in _STATEMENTS.items()
    }
