"""When spools leave `applied`, and when a partition was last touched by its owner."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE partitions ADD COLUMN leaves jsonb NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE partitions ADD COLUMN touched_at timestamptz NOT NULL DEFAULT now()")


def downgrade() -> None:
    op.execute("ALTER TABLE partitions DROP COLUMN leaves, DROP COLUMN touched_at")
