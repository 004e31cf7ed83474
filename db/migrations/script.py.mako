"""${message}.

Revision ID: ${up_revision}
Revises: ${down_revision or "nothing"}
Create Date: ${create_date.date()}

The rules for a migration (take these lines out when they hold):
- Name it with the next number: `alembic revision --rev-id 0003 -m "add_a_column"`.
- Plain SQL, one statement for each `op.execute`. In it `:name` would be a bind parameter: put a backslash before the
  colon, in a raw string.
- Give every constraint a name, and change db/schema.sql in the same commit: a test compares the two.
- Hold no lock for long. Add a constraint NOT VALID and validate it in a second migration; build an index on a table
  that has rows with CREATE INDEX CONCURRENTLY inside `with op.get_context().autocommit_block():`, where
  names carry their schema, because nothing of the session is pinned there through a pooler; fill rows in batches.
- The release before this one still runs while you upgrade: first add, and remove in a later release.
- Write the downgrade: a test runs every migration up, down and up. What it would lose belongs in its docstring.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        SELECT 1
        """
    )


def downgrade() -> None:
    op.execute(
        """
        SELECT 1
        """
    )
