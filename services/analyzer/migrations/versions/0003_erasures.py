"""Erasures: who must not come back, what was done, who is still to be told."""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = (
    # Keyed hashes of erased keys, and of keys that those of this partition may not name any more.
    """
    CREATE TABLE suppressed (
        partition smallint NOT NULL,
        hash bytea NOT NULL,
        erasure text NOT NULL,
        PRIMARY KEY (partition, hash)
    )
    """,
    # What each erasure has done in each partition: the certificate. `mark` is a keyed hash.
    """
    CREATE TABLE erasures (
        partition smallint NOT NULL,
        erasure text NOT NULL,
        mark bytea NOT NULL,
        whole boolean NOT NULL,
        recorded_at bigint NOT NULL,
        journal_time bigint NOT NULL,
        events bigint NOT NULL,
        lessons bigint NOT NULL,
        dead_letters bigint NOT NULL,
        PRIMARY KEY (partition, erasure, mark)
    )
    """,
    "CREATE INDEX erasures_by_id ON erasures (erasure)",
    # Keys in other partitions that must hear of an erasure; a row goes once they have.
    """
    CREATE TABLE erasure_notices (
        partition smallint NOT NULL,
        erasure text NOT NULL,
        mark bytea NOT NULL,
        target text NOT NULL,
        linked text NOT NULL,
        owned boolean NOT NULL,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (partition, erasure, mark)
    )
    """,
    # Models withdrawn and not published as such yet: an empty body.
    "CREATE INDEX models_withdrawn ON models (partition) WHERE body = ''::bytea",
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX models_withdrawn")
    op.execute("DROP TABLE erasure_notices, erasures, suppressed")
