"""First tables: partitions, events, ids, models, lessons, dead letters, reports, fates, the learner."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    # How far a partition is: the row every slice updates, and the fence in front of all others.
    """
    CREATE TABLE partitions (
        partition smallint PRIMARY KEY,
        epoch bigint NOT NULL,
        generation bigint NOT NULL,
        cluster_id text NOT NULL,
        next_offset bigint NOT NULL,
        number bigint NOT NULL,
        journal_time bigint NOT NULL,
        applied jsonb NOT NULL,
        counters jsonb NOT NULL,
        notes jsonb NOT NULL,
        models_offset bigint NOT NULL,
        published bigint NOT NULL
    ) WITH (fillfactor = 40)
    """,
    # The long memory. `recorded_at` (ms) is also the partition key: one table per day, made on demand.
    """
    CREATE TABLE events (
        partition smallint NOT NULL,
        number bigint NOT NULL,
        recorded_at bigint NOT NULL,
        journal_time bigint NOT NULL,
        occurred_at bigint NOT NULL,
        customer text COLLATE "C" NOT NULL,
        kind text NOT NULL,
        id text NOT NULL,
        body bytea NOT NULL
    ) PARTITION BY RANGE (recorded_at)
    """,
    "CREATE INDEX events_customer ON events (customer, occurred_at)",
    "CREATE INDEX events_number ON events (partition, number)",
    "CREATE TABLE event_days (day integer PRIMARY KEY)",
    """
    CREATE TABLE event_ids (
        partition smallint NOT NULL,
        hash bytea NOT NULL,
        journal_time bigint NOT NULL,
        PRIMARY KEY (partition, hash)
    )
    """,
    "CREATE INDEX event_ids_journal_time ON event_ids (partition, journal_time)",
    # Its own outbox: what has a revision above `partitions.published` is still to be published.
    """
    CREATE TABLE models (
        partition smallint NOT NULL,
        customer text COLLATE "C" NOT NULL,
        part text COLLATE "C" NOT NULL,
        revision bigint NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (partition, customer, part)
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE TABLE lessons (
        partition smallint NOT NULL,
        number bigint NOT NULL,
        second bigint NOT NULL,
        kind text NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (partition, number)
    )
    """,
    "CREATE INDEX lessons_order ON lessons (second, partition, number)",
    """
    CREATE TABLE dead_letters (
        partition smallint NOT NULL,
        cluster_id text NOT NULL,
        log_offset bigint NOT NULL,
        spool text NOT NULL,
        seq bigint NOT NULL,
        source text NOT NULL,
        code text NOT NULL,
        reason text NOT NULL,
        journal_time bigint NOT NULL,
        key bytea NOT NULL,
        value bytea,
        PRIMARY KEY (partition, cluster_id, log_offset)
    )
    """,
    """
    CREATE TABLE spool_reports (
        partition smallint NOT NULL,
        spool text NOT NULL,
        service text NOT NULL,
        recorded_at bigint NOT NULL,
        accepted jsonb NOT NULL,
        PRIMARY KEY (partition, spool)
    )
    """,
    # What became of records: the ledger is summed from these rows and the reports of the spools.
    """
    CREATE TABLE fates (
        partition smallint NOT NULL,
        spool text NOT NULL,
        source text NOT NULL,
        fate text NOT NULL,
        count bigint NOT NULL,
        PRIMARY KEY (partition, spool, source, fate)
    ) WITH (fillfactor = 50)
    """,
    # Written by the learner alone: its claim, its place in the canonical order, what it has published.
    """
    CREATE TABLE learner_state (
        name text PRIMARY KEY,
        epoch bigint NOT NULL,
        cluster_id text NOT NULL,
        second bigint NOT NULL,
        partition smallint NOT NULL,
        number bigint NOT NULL,
        version bigint NOT NULL,
        journal_time bigint NOT NULL,
        orders bigint NOT NULL,
        trials bigint NOT NULL,
        body bytea
    )
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    for name in (
        "learner_state",
        "fates",
        "spool_reports",
        "dead_letters",
        "lessons",
        "models",
        "event_ids",
        "event_days",
        "events",
        "partitions",
    ):
        op.execute(f"DROP TABLE {name}")
