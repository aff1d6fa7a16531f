"""Facts found by their kind, in the order they are counted."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("CREATE INDEX facts_kind ON facts (kind, partition, number)")


def downgrade() -> None:
    op.execute("DROP INDEX facts_kind")
