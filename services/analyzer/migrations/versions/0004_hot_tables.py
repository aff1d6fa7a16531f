"""Updates of models stay within their page again, and hot tables are vacuumed before they swell."""

from alembic import op

revision = "0004"
down_revision = "0003"

CHANGES = (
    # Trap: an index whose condition names a column that changes makes every update write all indexes.
    "DROP INDEX models_withdrawn",
    "ALTER TABLE models ADD COLUMN withdrawn boolean GENERATED ALWAYS AS (body = ''::bytea) STORED",
    "CREATE INDEX models_withdrawn ON models (partition) WHERE withdrawn",
    """
    ALTER TABLE models SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)
    """,
    # A few dozen rows that each slice updates: vacuumed by count, whatever their number.
    "ALTER TABLE partitions SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)",
    "ALTER TABLE fates SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)",
    """
    ALTER TABLE spool_reports SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 2000)
    """,
    # A thirtieth of the ids goes every day: at the usual fifth it would be six days' worth.
    "ALTER TABLE event_ids SET (autovacuum_vacuum_scale_factor = 0.03)",
    "ALTER TABLE learner_state SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500)",
)


def upgrade() -> None:
    for statement in CHANGES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX models_withdrawn")
    op.execute("ALTER TABLE models DROP COLUMN withdrawn")
    op.execute("CREATE INDEX models_withdrawn ON models (partition) WHERE body = ''::bytea")
