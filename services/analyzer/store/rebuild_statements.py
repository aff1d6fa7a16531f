"""The statements of a rebuild: LIVE stands for the schema that is served, SCRATCH for what is folded anew."""

from __future__ import annotations

DIGEST = """
    SELECT sha256(coalesce(string_agg(
        sha256(convert_to(customer, 'UTF8') || '\\x00'::bytea || convert_to(part, 'UTF8')
            || '\\x00'::bytea || body), ''::bytea ORDER BY customer, part), ''::bytea))
    FROM (
        SELECT customer, part, body FROM {schema}.models WHERE partition = $1 AND body <> ''
        UNION ALL SELECT customer, 'trials/' || decision COLLATE "C", body FROM {schema}.trials
        WHERE partition = $1) AS parts"""
"""As `services.analyzer.model.digest.partition_digest`; a deleted model has an empty body."""

_STATEMENTS = {
    "lock": "SELECT pg_try_advisory_lock(hashtext($1 || '.rebuild')::bigint)",
    "unlock": "SELECT pg_advisory_unlock(hashtext($1 || '.rebuild')::bigint)",
    "left": "SELECT nspname FROM pg_namespace WHERE nspname LIKE $1",
    # Unlogged: what a crash of the server leaves is empty, which `folded` tells from nothing to fold.
    "tables": """
        CREATE SCHEMA SCRATCH;
        CREATE UNLOGGED TABLE SCRATCH.models (LIKE LIVE.models INCLUDING INDEXES);
        CREATE UNLOGGED TABLE SCRATCH.trials (LIKE LIVE.trials INCLUDING INDEXES);
        CREATE UNLOGGED TABLE SCRATCH.idle_timers (LIKE LIVE.idle_timers INCLUDING INDEXES);
        CREATE UNLOGGED TABLE SCRATCH.lessons (LIKE LIVE.lessons INCLUDING INDEXES);
        CREATE UNLOGGED TABLE SCRATCH.facts (LIKE LIVE.facts INCLUDING INDEXES);
        CREATE UNLOGGED TABLE SCRATCH.folded (
            partition smallint PRIMARY KEY, number bigint NOT NULL, erasures bigint NOT NULL,
            journal_time bigint NOT NULL)""",
    "reached": "SELECT number, journal_time FROM LIVE.partitions WHERE partition = $1",
    "stop": "SELECT number, journal_time FROM LIVE.partitions WHERE partition = $1 FOR UPDATE",
    "erasures": "SELECT count(*) FROM LIVE.erasures WHERE partition = $1",
    "event_days": "SELECT day FROM LIVE.event_days ORDER BY day",
    "models": """
        SELECT partition, customer, part, revision, body FROM SCRATCH.models
        WHERE partition = $1 AND customer = ANY($2) AND body <> ''
        UNION ALL SELECT partition, customer, 'trials/' || decision, number, body FROM SCRATCH.trials
        WHERE partition = $1 AND customer = ANY($2)""",
    "put_models": """
        INSERT INTO SCRATCH.models (partition, customer, part, revision, body, dropped)
        SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::boolean[])
        ON CONFLICT (partition, customer, part) DO UPDATE SET revision = EXCLUDED.revision,
            body = EXCLUDED.body, dropped = EXCLUDED.dropped""",
    "put_folded": """
        INSERT INTO SCRATCH.folded (partition, number, erasures, journal_time) VALUES ($1, $2, $3, $4)
        ON CONFLICT (partition) DO UPDATE SET number = EXCLUDED.number, erasures = EXCLUDED.erasures,
            journal_time = EXCLUDED.journal_time""",
    "folded": "SELECT number, erasures, journal_time FROM SCRATCH.folded WHERE partition = $1",
    "forget_models": "DELETE FROM SCRATCH.models WHERE partition = $1",
    "forget_trials": "DELETE FROM SCRATCH.trials WHERE partition = $1",
    "forget_timers": "DELETE FROM SCRATCH.idle_timers WHERE partition = $1",
    "forget_lessons": "DELETE FROM SCRATCH.lessons WHERE partition = $1",
    "forget_facts": "DELETE FROM SCRATCH.facts WHERE partition = $1",
    "forget_folded": "DELETE FROM SCRATCH.folded WHERE partition = $1",
    "switch_models": """
        INSERT INTO LIVE.models (partition, customer, part, revision, body, dropped)
        SELECT anew.partition, anew.customer, anew.part, $2, anew.body, anew.dropped
        FROM SCRATCH.models AS anew LEFT JOIN LIVE.models AS live USING (partition, customer, part)
        WHERE anew.partition = $1 AND coalesce(live.body, '') <> anew.body
        ON CONFLICT (partition, customer, part) DO UPDATE SET revision = EXCLUDED.revision,
            body = EXCLUDED.body, dropped = EXCLUDED.dropped""",
    # A rebuild erases nobody.
    "switch_gone": """
        UPDATE LIVE.models AS live SET revision = $2, body = '', dropped = true
        WHERE partition = $1 AND body <> '' AND NOT EXISTS (SELECT FROM SCRATCH.models AS anew
            WHERE (anew.partition, anew.customer, anew.part)
                = (live.partition, live.customer, live.part))""",
    "switch_trials_gone": """
        DELETE FROM LIVE.trials AS live WHERE partition = $1
        AND NOT EXISTS (SELECT FROM SCRATCH.trials AS anew
            WHERE (anew.partition, anew.customer, anew.decision)
                = (live.partition, live.customer, live.decision)
            AND (anew.number, anew.due, anew.body) = (live.number, live.due, live.body))""",
    "switch_trials": """
        INSERT INTO LIVE.trials (partition, customer, decision, number, due, body)
        SELECT partition, customer, decision, number, due, body FROM SCRATCH.trials WHERE partition = $1
        ON CONFLICT DO NOTHING""",
    # None of them later than it was: a live slice knows when the next one falls due.
    "switch_timers": """
        INSERT INTO LIVE.idle_timers AS live (partition, customer, due)
        SELECT partition, customer, due FROM SCRATCH.idle_timers WHERE partition = $1
        ON CONFLICT (partition, customer) DO UPDATE SET due = EXCLUDED.due WHERE live.due > EXCLUDED.due""",
    "switch_lessons_gone": """
        DELETE FROM LIVE.lessons AS live WHERE partition = $1
        AND NOT EXISTS (SELECT FROM SCRATCH.lessons AS anew
            WHERE (anew.partition, anew.number, anew.part) = (live.partition, live.number, live.part)
            AND (anew.second, anew.kind, anew.body) = (live.second, live.kind, live.body))""",
    "switch_lessons": """
        INSERT INTO LIVE.lessons (partition, number, second, kind, body, part)
        SELECT partition, number, second, kind, body, part FROM SCRATCH.lessons WHERE partition = $1
        ON CONFLICT DO NOTHING""",
    "switch_facts_gone": """
        DELETE FROM LIVE.facts AS live WHERE partition = $1
        AND NOT EXISTS (SELECT FROM SCRATCH.facts AS anew
            WHERE (anew.partition, anew.number) = (live.partition, live.number)
            AND (anew.customer, anew.at, anew.kind, anew.body)
                = (live.customer, live.at, live.kind, live.body))""",
    "switch_facts": """
        INSERT INTO LIVE.facts (partition, number, customer, at, kind, body)
        SELECT partition, number, customer, at, kind, body FROM SCRATCH.facts WHERE partition = $1
        ON CONFLICT DO NOTHING""",
    "number": "UPDATE LIVE.partitions SET number = $2 WHERE partition = $1",
}


def rebuild_statements(live: str, scratch: str) -> dict[str, str]:
    """All statements of a rebuild of the tables in ``live`` by way of ``scratch``, by name."""
    return {
        name: text.replace("LIVE.", f"{live}.")
        .replace("SCRATCH.", f"{scratch}.")
        .replace("SCHEMA SCRATCH", f"SCHEMA {scratch}")
        for name, text in _STATEMENTS.items()
    }
