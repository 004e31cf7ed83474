"""Store the request, the stages and the owner of each run for the workers.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-22
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA pipeline")
    op.execute(
        """
        CREATE TABLE pipeline.work (
            run_id          integer     CONSTRAINT work_pkey PRIMARY KEY
                                        CONSTRAINT work_run_id_fkey
                                        REFERENCES public.pipeline_history ON DELETE CASCADE,
            subject         varchar(20) NOT NULL DEFAULT '',
            request         jsonb       NOT NULL,
            stages          jsonb       NOT NULL DEFAULT '{}',
            current_stage   varchar(50),
            attempts        integer     NOT NULL DEFAULT 0,
            owner           varchar(100),
            seen_at         timestamp,
            rung_at         timestamp,
            is_cancelled    boolean     NOT NULL DEFAULT false,
            raw_answer      text,
            callback_status varchar(20) CONSTRAINT work_callback_status_check
                                        CHECK (callback_status IN ('waiting', 'delivered', 'failed')),
            callback_tries  integer     NOT NULL DEFAULT 0,
            callback_due_at timestamp,
            callback_error  text
        )
        """
    )
    op.execute(
        """
        CREATE INDEX idx_work_callback_due_at ON pipeline.work (callback_due_at) WHERE callback_due_at IS NOT NULL
        """
    )
    op.execute(
        """
        CREATE FUNCTION pipeline.accept_run(
            video text, new_identifier text, new_type text, new_subject text, new_started_at timestamp,
            new_request jsonb, new_stages jsonb
        ) RETURNS TABLE (run_id integer, other_type text, other_subject text)
        LANGUAGE plpgsql AS $$
        DECLARE
            found_video_id integer;
        BEGIN
            SELECT videos.id INTO found_video_id FROM videos WHERE videos.identifier = video FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                RETURN;
            END IF;

            SELECT history.pipeline_type, coalesce(work.subject, '') INTO other_type, other_subject
            FROM pipeline_history AS history LEFT JOIN pipeline.work ON work.run_id = history.id
            WHERE history.video_id = found_video_id AND history.status = 'running'
              AND ('full' IN (history.pipeline_type, new_type)
                   OR (history.pipeline_type = new_type AND coalesce(work.subject, '') = new_subject))
            ORDER BY history.pipeline_type <> 'full', history.id
            LIMIT 1;

            IF NOT FOUND THEN
                INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at)
                VALUES (new_identifier, found_video_id, new_type, 'running', new_started_at)
                RETURNING pipeline_history.id INTO run_id;
                INSERT INTO pipeline.work (run_id, subject, request, stages, rung_at, callback_status)
                VALUES (run_id, new_subject, new_request, new_stages, now() AT TIME ZONE 'utc',
                        CASE WHEN new_request ->> 'callback_url' <> '' THEN 'waiting' END);
            END IF;
            RETURN NEXT;
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP SCHEMA pipeline CASCADE")
