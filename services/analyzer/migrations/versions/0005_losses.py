"""How often all that was published of a partition was lost, with a broker or a topic."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE partitions ADD COLUMN losses bigint NOT NULL DEFAULT 0")


def downgrade() -> None:
    op.execute("ALTER TABLE partitions DROP COLUMN losses")
