"""The catalogue with its outbox, and the pools of decisions."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE SEQUENCE catalogue_revisions")
    op.execute(
        """
        CREATE TABLE catalogue (
            kind text NOT NULL,
            id text NOT NULL,
            body bytea NOT NULL,
            withdrawn boolean NOT NULL DEFAULT false,
            revision bigint NOT NULL DEFAULT nextval('catalogue_revisions'),
            published bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (kind, id)
        )
        """
    )
    op.execute("CREATE INDEX catalogue_outbox ON catalogue (revision) WHERE published < revision")
    op.execute(
        "CREATE TABLE clusters (one boolean PRIMARY KEY DEFAULT true CHECK (one), cluster text NOT NULL)"
    )
    op.execute(
        """
        CREATE TABLE decisions (
            decision_id text PRIMARY KEY,
            customer text NOT NULL,
            decided_at bigint NOT NULL,
            answer bytea NOT NULL,
            pool bytea NOT NULL,
            stored_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute("CREATE INDEX decisions_by_age ON decisions USING brin (stored_at)")
    op.execute("CREATE INDEX decisions_by_customer ON decisions (customer)")


def downgrade() -> None:
    op.execute("DROP TABLE decisions, clusters, catalogue")
    op.execute("DROP SEQUENCE catalogue_revisions")
