"""Several lessons of one event: `part` tells them apart, in lessons and in the learner's place."""

from alembic import op

revision = "0008"
down_revision = "0007"

CHANGES = (
    "ALTER TABLE lessons ADD COLUMN part integer NOT NULL DEFAULT 0",
    "ALTER TABLE lessons DROP CONSTRAINT lessons_pkey, ADD PRIMARY KEY (partition, number, part)",
    "DROP INDEX lessons_order",
    "CREATE INDEX lessons_order ON lessons (second, partition, number, part)",
    "ALTER TABLE learner_state ADD COLUMN part integer NOT NULL DEFAULT 0",
)


def upgrade() -> None:
    for statement in CHANGES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DELETE FROM lessons WHERE part > 0")
    op.execute("ALTER TABLE learner_state DROP COLUMN part")
    op.execute("DROP INDEX lessons_order")
    op.execute("ALTER TABLE lessons DROP CONSTRAINT lessons_pkey, ADD PRIMARY KEY (partition, number)")
    op.execute("ALTER TABLE lessons DROP COLUMN part")
    op.execute("CREATE INDEX lessons_order ON lessons (second, partition, number)")
