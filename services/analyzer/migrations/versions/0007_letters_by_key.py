"""Dead letters found by their key, and by their age."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # A hash, because a key may be as long as a record.
    op.execute("CREATE INDEX dead_letters_key ON dead_letters (partition, md5(key))")
    op.execute("CREATE INDEX dead_letters_journal_time ON dead_letters (partition, journal_time) WHERE sent")


def downgrade() -> None:
    op.execute("DROP INDEX dead_letters_key")
    op.execute("DROP INDEX dead_letters_journal_time")
