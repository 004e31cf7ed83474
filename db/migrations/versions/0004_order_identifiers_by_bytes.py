"""Order videos by the bytes of their identifiers, whatever the collation of the database.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-22
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The table is not written again, only the index of this one column.
    op.execute('ALTER TABLE videos ALTER COLUMN identifier TYPE varchar(255) COLLATE "C"')


def downgrade() -> None:
    op.execute('ALTER TABLE videos ALTER COLUMN identifier TYPE varchar(255) COLLATE "default"')
