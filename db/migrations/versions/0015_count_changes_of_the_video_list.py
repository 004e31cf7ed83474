"""Count the transactions that change the list of videos, so that servers can keep its JSON.

Revision ID: 0015
Revises: 0014
Create Date: 2026-11-28
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TRIGGERS = (
    """
    videos_count_list_change AFTER INSERT OR DELETE OR UPDATE OF
        identifier, source_url, cloud_url, title, duration_seconds, file_size_kb, video_codec, audio_codec
    ON videos FOR EACH ROW
    """,
    """
    transcripts_count_list_change AFTER INSERT OR DELETE OR UPDATE OF video_id
    ON transcripts FOR EACH ROW
    """,
    """
    thumbnails_count_list_addition AFTER INSERT OR UPDATE OF video_id
    ON thumbnails FOR EACH ROW WHEN (NEW.video_id IS NOT NULL)
    """,
    """
    thumbnails_count_list_removal AFTER DELETE OR UPDATE OF video_id
    ON thumbnails FOR EACH ROW WHEN (OLD.video_id IS NOT NULL)
    """,
    """
    pending_videos_count_list_change AFTER INSERT OR DELETE OR UPDATE OF video_id
    ON pipeline.pending_videos FOR EACH ROW
    """,
    "videos_count_list_truncation AFTER TRUNCATE ON videos FOR EACH STATEMENT",
    "transcripts_count_list_truncation AFTER TRUNCATE ON transcripts FOR EACH STATEMENT",
    "thumbnails_count_list_truncation AFTER TRUNCATE ON thumbnails FOR EACH STATEMENT",
    "pending_videos_count_list_truncation AFTER TRUNCATE ON pipeline.pending_videos FOR EACH STATEMENT",
)


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE library.video_list_changes (
            slot         uuid   DEFAULT gen_random_uuid() CONSTRAINT video_list_changes_pkey PRIMARY KEY,
            transactions bigint NOT NULL DEFAULT 1
        ) WITH (fillfactor = 10)
        """
    )
    op.execute(
        """
        CREATE FUNCTION library.count_video_list_change() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('library.has_counted', true) = 'on' THEN
                RETURN NULL;
            END IF;
            UPDATE library.video_list_changes SET transactions = transactions + 1
            WHERE slot = (
                SELECT slot FROM library.video_list_changes
                WHERE current_setting('transaction_isolation') = 'read committed'
                LIMIT 1 FOR UPDATE SKIP LOCKED
            );
            IF NOT FOUND THEN
                INSERT INTO library.video_list_changes DEFAULT VALUES;
            END IF;
            PERFORM set_config('library.has_counted', 'on', true);
            RETURN NULL;
        END
        $$
        """
    )
    for trigger in _TRIGGERS:
        op.execute(f"CREATE TRIGGER {trigger} EXECUTE FUNCTION library.count_video_list_change()")


def downgrade() -> None:
    op.execute("DROP FUNCTION library.count_video_list_change() CASCADE")
    op.execute("DROP TABLE library.video_list_changes")
