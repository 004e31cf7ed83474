"""Store the local engine as the model of its configs, and limit moments of videos without file by the transcript.

Configs of the local engine had the name of the model that it replaced, and a temperature. They are recognized by the
engine's own prompts, which no model gets. Configs that become equal are merged.

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-27
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ADD_IF_FREE = """
    CREATE OR REPLACE FUNCTION public.moments_add_if_free(
        video text, new_identifier text, new_start double precision, new_end double precision, new_title text
    ) RETURNS TABLE (
        video_duration double precision, identifier text, other_title text,
        other_start double precision, other_end double precision
    )
    LANGUAGE plpgsql AS $$
    DECLARE
        new_video_id integer;
    BEGIN
        SELECT videos.id, {duration} INTO new_video_id, video_duration
        FROM videos WHERE videos.identifier = video FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN;
        END IF;

        SELECT moments.title, moments.start_time, moments.end_time INTO other_title, other_start, other_end
        FROM moments
        WHERE moments.video_id = new_video_id AND moments.start_time < new_end AND moments.end_time > new_start
        ORDER BY moments.start_time, moments.id
        LIMIT 1;

        IF NOT FOUND AND coalesce(new_end <= video_duration, true) THEN
            identifier := new_identifier;
            INSERT INTO moments (identifier, video_id, start_time, end_time, title)
            VALUES (new_identifier, new_video_id, new_start, new_end, new_title);
        END IF;
        RETURN NEXT;
    END
    $$
    """


def upgrade() -> None:
    op.execute(
        """
        CREATE FUNCTION public.videos_end(video public.videos) RETURNS double precision
        LANGUAGE sql STABLE AS $$
            SELECT CASE WHEN video.duration_seconds IS NOT NULL OR video.video_codec IS NOT NULL
                             OR video.audio_codec IS NOT NULL
                        THEN video.duration_seconds
                        ELSE (SELECT max(times.value::text::double precision)
                              FROM transcripts CROSS JOIN LATERAL (
                                  SELECT jsonb_path_query(segment_timestamps, '$[*].end ? (@.type() == "number")')
                                  UNION ALL
                                  SELECT jsonb_path_query(word_timestamps, '$[*].end ? (@.type() == "number")')
                              ) AS times (value)
                              WHERE transcripts.video_id = video.id)
                   END
        $$
        """
    )
    op.execute(_ADD_IF_FREE.format(duration="videos_end(videos)"))
    _name_local_engine()


def _name_local_engine() -> None:
    op.execute(
        """
        CREATE FUNCTION pipeline.number(value double precision) RETURNS text LANGUAGE sql IMMUTABLE AS $$
            SELECT CASE WHEN value IS NULL THEN 'null' WHEN value::text ~ '[.e]' THEN value::text
                        ELSE value::text || '.0' END
        $$
        """
    )
    op.execute(
        """
        CREATE TABLE pipeline.mended AS
        SELECT id, hash, min(id) OVER same_hash AS kept_id,
               CASE WHEN min(transcript_id) OVER same_hash = max(transcript_id) OVER same_hash
                         AND count(transcript_id) OVER same_hash = count(*) OVER same_hash
                    THEN transcript_id END AS kept_transcript_id
        FROM (
            SELECT configs.id, transcript_id, encode(sha256(convert_to(format(
                       '[%s, "local (all-MiniLM-L6-v2)", "%s", null, %s, %s, %s, %s, %s, %s]',
                       prompt_id, operation_type, pipeline.number(top_p), pipeline.number(top_k),
                       pipeline.number(min_moment_length), pipeline.number(max_moment_length),
                       pipeline.number(min_moments), pipeline.number(max_moments)
                   ), 'UTF8')), 'hex') AS hash
            FROM public.generation_configs AS configs JOIN public.prompts ON prompts.id = prompt_id
            WHERE system_prompt LIKE 'Found on this machine, without a language model:%'
               OR system_prompt LIKE 'Refined on this machine, without a language model:%'
        ) AS local_configs
        WINDOW same_hash AS (PARTITION BY hash)
        """
    )
    op.execute(
        """
        UPDATE public.moments SET generation_config_id = kept_id
        FROM pipeline.mended WHERE generation_config_id = mended.id AND mended.id <> kept_id
        """
    )
    op.execute(
        """
        UPDATE public.pipeline_history SET generation_config_id = kept_id
        FROM pipeline.mended WHERE generation_config_id = mended.id AND mended.id <> kept_id
        """
    )
    op.execute(
        """
        DELETE FROM public.generation_configs AS configs USING pipeline.mended
        WHERE configs.id = mended.id AND mended.id <> kept_id
        """
    )
    op.execute(
        """
        UPDATE public.generation_configs AS configs
        SET model = 'local (all-MiniLM-L6-v2)', temperature = NULL, transcript_id = kept_transcript_id,
            config_hash = hash
        FROM pipeline.mended WHERE configs.id = mended.id
        """
    )
    op.execute("DROP TABLE pipeline.mended")
    op.execute("DROP FUNCTION pipeline.number")


def downgrade() -> None:
    """Which models were asked for is not known any more."""
    op.execute(_ADD_IF_FREE.format(duration="videos.duration_seconds"))
    op.execute("DROP FUNCTION public.videos_end(public.videos)")
