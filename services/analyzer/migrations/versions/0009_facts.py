"""Facts: what insights are counted from, a narrow row beside each event that tells any."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # Events from before have none: `closedloop rebuild` writes them.
    op.execute(
        """
        CREATE TABLE facts (
            partition smallint NOT NULL,
            number bigint NOT NULL,
            customer text COLLATE "C" NOT NULL,
            at bigint NOT NULL,
            kind text NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (partition, number)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE facts")
