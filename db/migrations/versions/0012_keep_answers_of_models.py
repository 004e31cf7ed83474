"""Store the model answers of runs that have not completed, so that a retry does not pay for them again.

Revision ID: 0012
Revises: 0011
Create Date: 2026-11-28
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE pipeline.answers (
            run_id   integer CONSTRAINT answers_run_id_fkey REFERENCES public.pipeline_history ON DELETE CASCADE,
            question jsonb,
            answer   jsonb   NOT NULL,
            CONSTRAINT answers_pkey PRIMARY KEY (run_id, question)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE pipeline.answers")
