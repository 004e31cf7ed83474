"""Rename pipeline.work to pipeline.runs, claim stages instead of runs, and keep rejected requests.

Revision ID: 0014
Revises: 0013
Create Date: 2026-11-28
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_COLUMNS = {
    "current_stage": "stage",
    "attempts": "attempt",
    "seen_at": "heartbeat_at",
    "rung_at": "notified_at",
    "is_cancelled": "cancel_requested",
    "callback_tries": "callback_attempts",
}
_CONSTRAINTS = ("pkey", "run_id_fkey", "callback_status_check")


def upgrade() -> None:
    op.execute("DROP FUNCTION pipeline.accept_run(text, text, text, text, timestamp, jsonb, jsonb)")
    op.execute("ALTER TABLE pipeline.work RENAME TO runs")
    for name in _CONSTRAINTS:
        op.execute(f"ALTER TABLE pipeline.runs RENAME CONSTRAINT work_{name} TO runs_{name}")
    for old, new in _COLUMNS.items():
        op.execute(f"ALTER TABLE pipeline.runs RENAME COLUMN {old} TO {new}")
    op.execute("ALTER INDEX pipeline.idx_work_callback_due_at RENAME TO idx_runs_callback_due_at")
    op.execute("ALTER TABLE pipeline.runs ADD COLUMN last_error text")
    _release_running_runs()
    op.execute("CREATE INDEX idx_runs_owner ON pipeline.runs (owner) WHERE owner IS NOT NULL")
    _create_accept_run()
    _create_claim_stage()
    op.execute(
        """
        CREATE TABLE pipeline.rejected_requests (
            id          bigserial   CONSTRAINT rejected_requests_pkey PRIMARY KEY,
            entry_id    varchar(50) NOT NULL CONSTRAINT rejected_requests_entry_id_key UNIQUE,
            fields      jsonb       NOT NULL,
            reason      text        NOT NULL,
            received_at timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
        )
        """
    )


def _release_running_runs() -> None:
    """Let the runs that have not ended wait at their first stage that is not done, for a worker of this version.

    The attempt of one that a worker has does not count: that worker has not died.
    """
    op.execute(
        """
        UPDATE pipeline.runs
        SET stage = coalesce(
                (SELECT open.name FROM unnest(types.stages) WITH ORDINALITY AS open (name, position)
                 WHERE coalesce(runs.stages -> open.name ->> 'status', '') NOT IN ('completed', 'skipped')
                 ORDER BY open.position LIMIT 1),
                types.stages[cardinality(types.stages)], runs.stage),
            attempt = runs.attempt - CASE WHEN runs.owner IS NOT NULL AND runs.attempt > 0 THEN 1 ELSE 0 END,
            owner = NULL, heartbeat_at = NULL, notified_at = NULL
        FROM pipeline_history AS history
        LEFT JOIN (VALUES
            ('full', ARRAY['download', 'audio', 'audio_upload', 'transcript', 'generation', 'clips', 'clip_upload',
                           'refinement']),
            ('audio_only', ARRAY['audio', 'audio_upload']),
            ('transcript_only', ARRAY['transcript']),
            ('moments_only', ARRAY['generation']),
            ('clips_only', ARRAY['clips', 'clip_upload']),
            ('refinement_only', ARRAY['refinement'])
        ) AS types (name, stages) ON types.name = history.pipeline_type
        WHERE history.id = runs.run_id AND history.status = 'running'
        """
    )


def _create_accept_run() -> None:
    op.execute(
        """
        CREATE FUNCTION pipeline.accept_run(
            video text, new_identifier text, new_type text, new_subject text, new_stage text,
            new_started_at timestamp, new_request jsonb, new_stages jsonb
        ) RETURNS TABLE (run_id integer, other_type text, other_subject text)
        LANGUAGE plpgsql AS $$
        DECLARE
            found_video_id integer;
        BEGIN
            SELECT videos.id INTO found_video_id FROM videos WHERE videos.identifier = video FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                RETURN;
            END IF;

            SELECT history.pipeline_type, coalesce(runs.subject, '') INTO other_type, other_subject
            FROM pipeline_history AS history LEFT JOIN pipeline.runs ON runs.run_id = history.id
            WHERE history.video_id = found_video_id AND history.status = 'running'
              AND ('full' IN (history.pipeline_type, new_type)
                   OR (history.pipeline_type = new_type AND coalesce(runs.subject, '') = new_subject))
            ORDER BY history.pipeline_type <> 'full', history.id
            LIMIT 1;

            IF NOT FOUND THEN
                INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at)
                VALUES (new_identifier, found_video_id, new_type, 'running', new_started_at)
                RETURNING pipeline_history.id INTO run_id;
                INSERT INTO pipeline.runs (run_id, subject, request, stages, stage, notified_at, callback_status)
                VALUES (run_id, new_subject, new_request, new_stages, new_stage, now() AT TIME ZONE 'utc',
                        CASE WHEN new_request ->> 'callback_url' <> '' THEN 'waiting' END);
            END IF;
            RETURN NEXT;
        END
        $$
        """
    )


def _create_claim_stage() -> None:
    op.execute(
        """
        CREATE FUNCTION pipeline.claim_stage(
            run text, wanted text, worker text, stalled_after double precision, most integer
        ) RETURNS TABLE (
            verdict text, id integer, identifier text, video_id integer, video text, pipeline_type text,
            subject text, request jsonb, stages jsonb, stage text, attempt integer, owner text,
            started_at double precision
        )
        LANGUAGE plpgsql AS $$
        #variable_conflict use_column
        DECLARE
            found_id integer;
        BEGIN
            SELECT runs.run_id INTO found_id
            FROM pipeline.runs JOIN pipeline_history AS history ON history.id = runs.run_id
            WHERE history.identifier = run AND history.status = 'running' AND runs.stage = wanted
              AND (runs.owner IS NULL
                   OR runs.heartbeat_at < clock_timestamp() AT TIME ZONE 'utc' - make_interval(secs => stalled_after))
            FOR NO KEY UPDATE OF runs;

            PERFORM FROM pipeline_history AS history WHERE history.id = found_id AND history.status = 'running';
            IF NOT FOUND THEN
                RETURN;
            END IF;

            IF most IS NOT NULL THEN
                PERFORM pg_advisory_xact_lock(hashtextextended('stages:' || wanted, 0));
                IF most <= (
                    SELECT count(*) FROM pipeline.runs
                    WHERE runs.stage = wanted AND runs.owner IS NOT NULL AND runs.run_id <> found_id
                      AND runs.heartbeat_at >=
                          clock_timestamp() AT TIME ZONE 'utc' - make_interval(secs => stalled_after)
                ) THEN
                    UPDATE pipeline.runs SET stages = jsonb_set(runs.stages, ARRAY[wanted], '{"status": "waiting"}')
                    WHERE runs.run_id = found_id
                      AND coalesce(runs.stages -> wanted ->> 'status', 'pending') = 'pending';
                    verdict := 'full';
                    RETURN NEXT;
                    RETURN;
                END IF;
            END IF;

            RETURN QUERY
            UPDATE pipeline.runs
            SET owner = worker, heartbeat_at = clock_timestamp() AT TIME ZONE 'utc', attempt = runs.attempt + 1
            FROM pipeline_history AS history JOIN videos ON videos.id = history.video_id
            WHERE runs.run_id = found_id AND history.id = found_id
            RETURNING 'claimed', history.id, history.identifier::text, history.video_id, videos.identifier::text,
                      history.pipeline_type::text, runs.subject::text, runs.request, runs.stages, runs.stage::text,
                      runs.attempt, runs.owner::text, extract(epoch FROM history.started_at)::double precision;
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE pipeline.rejected_requests")
    op.execute("DROP FUNCTION pipeline.claim_stage(text, text, text, double precision, integer)")
    op.execute("DROP FUNCTION pipeline.accept_run(text, text, text, text, text, timestamp, jsonb, jsonb)")
    op.execute("DROP INDEX pipeline.idx_runs_owner")
    _restore_current_stages()
    op.execute(
        """
        UPDATE pipeline.runs SET owner = NULL, heartbeat_at = NULL, notified_at = NULL
        FROM pipeline_history AS history WHERE history.id = runs.run_id AND history.status = 'running'
        """
    )
    op.execute("ALTER TABLE pipeline.runs DROP COLUMN last_error")
    op.execute("ALTER INDEX pipeline.idx_runs_callback_due_at RENAME TO idx_work_callback_due_at")
    for old, new in _COLUMNS.items():
        op.execute(f"ALTER TABLE pipeline.runs RENAME COLUMN {new} TO {old}")
    for name in _CONSTRAINTS:
        op.execute(f"ALTER TABLE pipeline.runs RENAME CONSTRAINT runs_{name} TO work_{name}")
    op.execute("ALTER TABLE pipeline.runs RENAME TO work")
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


def _restore_current_stages() -> None:
    """Set `stage` to what `current_stage` was: the last stage that has begun, null while the first one waits."""
    op.execute(
        """
        UPDATE pipeline.runs
        SET stage = (
            SELECT begun.name
            FROM unnest(ARRAY['download', 'audio', 'audio_upload', 'transcript', 'generation', 'clips', 'clip_upload',
                              'refinement']) WITH ORDINALITY AS begun (name, position)
            WHERE coalesce(runs.stages -> begun.name ->> 'status', 'pending') NOT IN ('pending', 'skipped')
            ORDER BY begun.position DESC LIMIT 1)
        """
    )
