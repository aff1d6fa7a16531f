"""What is remembered of decisions until their trials are judged: the third part of a customer's model."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE trials (
            partition smallint NOT NULL,
            customer text COLLATE "C" NOT NULL,
            decision text COLLATE "C" NOT NULL,
            number bigint NOT NULL,
            due bigint NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (partition, customer, decision)
        ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)
        """
    )
    # What falls due is asked for whenever journal time passes the first of them.
    op.execute("CREATE INDEX trials_due ON trials (partition, due)")


def downgrade() -> None:
    op.execute("DROP TABLE trials")
