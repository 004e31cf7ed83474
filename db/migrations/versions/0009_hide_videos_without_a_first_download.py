"""Leave videos out of lists until their first download has succeeded.

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-27
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE pipeline.pending_videos (
            video_id integer CONSTRAINT pending_videos_pkey PRIMARY KEY
                             CONSTRAINT pending_videos_video_id_fkey REFERENCES public.videos ON DELETE CASCADE
        )
        """
    )
    # Those that were added by a run over a URL, and of which nothing was ever known but that URL.
    op.execute(
        """
        INSERT INTO pipeline.pending_videos (video_id)
        SELECT id FROM videos
        WHERE source_url IS NOT NULL AND file_size_kb IS NULL AND duration_seconds IS NULL
          AND EXISTS (
              SELECT FROM pipeline_history AS history JOIN pipeline.work ON work.run_id = history.id
              WHERE history.video_id = videos.id AND work.request ->> 'video_url' <> ''
          )
          AND NOT EXISTS (SELECT FROM transcripts WHERE video_id = videos.id)
          AND NOT EXISTS (SELECT FROM moments WHERE video_id = videos.id)
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE pipeline.pending_videos")
