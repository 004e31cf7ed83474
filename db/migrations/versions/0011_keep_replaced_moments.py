"""Store the moments that a run replaces, to restore them where it does not complete.

Revision ID: 0011
Revises: 0010
Create Date: 2026-11-27
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE pipeline.replaced (
            run_id     integer   CONSTRAINT replaced_pkey PRIMARY KEY
                                 CONSTRAINT replaced_run_id_fkey
                                 REFERENCES public.pipeline_history ON DELETE CASCADE,
            moments    jsonb     NOT NULL,
            clips      jsonb     NOT NULL,
            thumbnails jsonb     NOT NULL,
            made       integer[] NOT NULL
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE pipeline.replaced")
