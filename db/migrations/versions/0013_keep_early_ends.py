"""Store early ends of video files without a declared duration, and count failed writes of playable copies.

Revision ID: 0013
Revises: 0012
Create Date: 2026-11-28
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE library.video_files
            ADD COLUMN ends_early boolean NOT NULL DEFAULT false,
            ADD COLUMN failures   integer NOT NULL DEFAULT 0
        """
    )
    op.execute("UPDATE library.video_files SET ends_early = true WHERE declared_seconds IS NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE library.video_files DROP COLUMN ends_early, DROP COLUMN failures")
