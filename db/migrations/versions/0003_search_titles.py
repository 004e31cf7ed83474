"""Search the titles of moments.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-22
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What an attempt that was interrupted left behind is an index that nothing uses.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS public.idx_moments_title")
        op.execute(
            """
            CREATE INDEX CONCURRENTLY idx_moments_title ON public.moments
            USING gin (to_tsvector('english', title)) WITH (fastupdate = off)
            """
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY public.idx_moments_title")
