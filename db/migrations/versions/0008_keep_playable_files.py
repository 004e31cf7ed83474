"""Store whether a video file ends early, and its playable copy.

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-27
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS library")
    op.execute(
        """
        CREATE TABLE library.video_files (
            video_id         integer     CONSTRAINT video_files_pkey PRIMARY KEY
                                         CONSTRAINT video_files_video_id_fkey
                                         REFERENCES public.videos ON DELETE CASCADE,
            source_url       text        NOT NULL,
            declared_seconds double precision,
            status           varchar(20) NOT NULL DEFAULT 'waiting' CONSTRAINT video_files_status_check
                                         CHECK (status IN ('waiting', 'inspecting', 'making', 'ready', 'unneeded',
                                                           'failed')),
            playable_url     text        CONSTRAINT video_files_playable_url_check
                                         CHECK ((playable_url IS NOT NULL) = (status = 'ready')),
            reason           text,
            attempts         integer     NOT NULL DEFAULT 0,
            owner            varchar(100),
            seen_at          timestamp,
            due_at           timestamp
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE library.video_files")
    op.execute("DROP SCHEMA library")
