"""When to look whether a visitor is idle; which models are withdrawn of whom nothing was erased."""

from alembic import op

revision = "0012"
down_revision = "0011"

DAY = 86_400_000


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE idle_timers (
            partition smallint NOT NULL,
            customer text COLLATE "C" NOT NULL,
            due bigint NOT NULL,
            PRIMARY KEY (partition, customer)
        ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)
        """
    )
    op.execute("ALTER TABLE models ADD COLUMN dropped boolean NOT NULL DEFAULT false")
    op.execute("CREATE INDEX idle_timers_due ON idle_timers (partition, due, customer)")
    # When those were heard of who are there already is not known. Spread, lest all fall due at once.
    op.execute(
        f"""
        INSERT INTO idle_timers (partition, customer, due)
        SELECT partition, customer, journal_time + {90 * DAY} + (hashtext(customer) & 67108863)
        FROM models JOIN partitions USING (partition)
        WHERE part = 'profile' AND NOT withdrawn AND customer ~ '^anon:' AND customer !~ '~[0-9]+$'
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE idle_timers")
    op.execute("ALTER TABLE models DROP COLUMN dropped")
