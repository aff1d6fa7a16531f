"""What an id stood for, dead letters that can be replayed, outcomes ahead of their decisions."""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    # A hash of what was said under the id; empty where that does not matter.
    "ALTER TABLE event_ids ADD COLUMN content bytea NOT NULL DEFAULT ''",
    """
    ALTER TABLE dead_letters
        DROP CONSTRAINT dead_letters_pkey,
        ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        ADD COLUMN sent boolean NOT NULL DEFAULT false,
        ADD COLUMN asked boolean NOT NULL DEFAULT false,
        ADD COLUMN attempts integer NOT NULL DEFAULT 0,
        ADD COLUMN replayed_at bigint
    """,
    "CREATE INDEX dead_letters_unsent ON dead_letters (partition, id) WHERE NOT sent",
    "CREATE INDEX dead_letters_asked ON dead_letters (partition, id) WHERE asked",
    # Outcomes that came before their decisions. They count nothing, and go after some minutes.
    """
    CREATE TABLE waiting_outcomes (
        partition smallint NOT NULL,
        customer text COLLATE "C" NOT NULL,
        decision text NOT NULL,
        hash bytea NOT NULL,
        journal_time bigint NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (partition, customer, decision, hash)
    )
    """,
    "CREATE INDEX waiting_outcomes_journal_time ON waiting_outcomes (partition, journal_time)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE waiting_outcomes")
    op.execute("DROP INDEX dead_letters_unsent")
    op.execute("DROP INDEX dead_letters_asked")
    op.execute(
        "ALTER TABLE dead_letters DROP COLUMN id, DROP COLUMN sent, DROP COLUMN asked,"
        " DROP COLUMN attempts, DROP COLUMN replayed_at, ADD PRIMARY KEY (partition, cluster_id, log_offset)"
    )
    op.execute("ALTER TABLE event_ids DROP COLUMN content")
