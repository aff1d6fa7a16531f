"""Republications of the catalogue have numbers, and are closed by a marker."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE clusters ADD COLUMN number bigint NOT NULL DEFAULT 1")
    op.execute("ALTER TABLE clusters ADD COLUMN marked boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    op.execute("ALTER TABLE clusters DROP COLUMN number, DROP COLUMN marked")
