"""The eight tables, column by column, as they were planned; and what holds for all of them."""

from app.database import Connection
from tests.migrations.rows import fetch

_COLUMNS = """
clips.id                                    serial            required
clips.moment_id                             integer           required
clips.video_id                              integer           required
clips.cloud_url                             text              required
clips.start_time                            double precision  required
clips.end_time                              double precision  required
clips.padding_left                          double precision  required
clips.padding_right                         double precision  required
clips.file_size_kb                          bigint            optional
clips.format                                varchar(20)       optional
clips.video_codec                           varchar(50)       optional
clips.audio_codec                           varchar(50)       optional
clips.resolution                            varchar(20)       optional
clips.created_at                            timestamp         required

generation_configs.id                       serial            required
generation_configs.prompt_id                integer           required
generation_configs.transcript_id            integer           optional
generation_configs.model                    varchar(100)      required
generation_configs.operation_type           varchar(50)       required
generation_configs.temperature              double precision  optional
generation_configs.top_p                    double precision  optional
generation_configs.top_k                    integer           optional
generation_configs.min_moment_length        double precision  optional
generation_configs.max_moment_length        double precision  optional
generation_configs.min_moments              integer           optional
generation_configs.max_moments              integer           optional
generation_configs.config_hash              varchar(64)       required
generation_configs.created_at               timestamp         required

moments.id                                  serial            required
moments.identifier                          varchar(20)       required
moments.video_id                            integer           required
moments.start_time                          double precision  required
moments.end_time                            double precision  required
moments.title                               varchar(500)      required
moments.is_refined                          boolean           required
moments.parent_id                           integer           optional
moments.generation_model                    varchar(100)      optional
moments.generation_config_id                integer           optional
moments.score                               integer           optional
moments.scoring_model                       varchar(100)      optional
moments.scored_at                           timestamp         optional
moments.created_at                          timestamp         required
moments.updated_at                          timestamp         required

pipeline_history.id                         serial            required
pipeline_history.identifier                 varchar(100)      required
pipeline_history.video_id                   integer           required
pipeline_history.generation_config_id       integer           optional
pipeline_history.pipeline_type              varchar(50)       required
pipeline_history.status                     varchar(20)       required
pipeline_history.started_at                 timestamp         required
pipeline_history.completed_at               timestamp         optional
pipeline_history.duration_seconds           double precision  optional
pipeline_history.total_moments_generated    integer           optional
pipeline_history.total_clips_created        integer           optional
pipeline_history.error_stage                varchar(50)       optional
pipeline_history.error_message              text              optional
pipeline_history.created_at                 timestamp         required

prompts.id                                  serial            required
prompts.user_prompt                         text              required
prompts.system_prompt                       text              required
prompts.prompt_hash                         varchar(64)       required
prompts.created_at                          timestamp         required

thumbnails.id                               serial            required
thumbnails.video_id                         integer           optional
thumbnails.clip_id                          integer           optional
thumbnails.cloud_url                        text              required
thumbnails.file_size_kb                     bigint            optional
thumbnails.created_at                       timestamp         required

transcripts.id                              serial            required
transcripts.video_id                        integer           required
transcripts.full_text                       text              required
transcripts.word_timestamps                 jsonb             required
transcripts.segment_timestamps              jsonb             required
transcripts.language                        varchar(10)       required
transcripts.number_of_words                 integer           optional
transcripts.number_of_segments              integer           optional
transcripts.transcription_service           varchar(50)       optional
transcripts.processing_time_seconds         double precision  optional
transcripts.created_at                      timestamp         required

videos.id                                   serial            required
videos.identifier                           varchar(255)      required
videos.source_url                           text              optional
videos.cloud_url                            text              required
videos.title                                varchar(500)      optional
videos.duration_seconds                     double precision  optional
videos.file_size_kb                         bigint            optional
videos.video_codec                          varchar(50)       optional
videos.audio_codec                          varchar(50)       optional
videos.resolution                           varchar(20)       optional
videos.frame_rate                           double precision  optional
videos.created_at                           timestamp         required
"""


async def test_the_tables_are_the_planned_ones_and_alembics(conn: Connection) -> None:
    found = await fetch(conn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    planned = {line.partition(".")[0] for line in _COLUMNS.splitlines() if line}
    assert {name for (name,) in found} == planned | {"alembic_version"}
    assert len(planned) == 8


async def test_every_column_has_its_type_its_length_and_its_place(conn: Connection) -> None:
    found = await fetch(
        conn,
        """
        SELECT table_name || '.' || column_name,
               CASE WHEN column_default = format('nextval(%L::regclass)', table_name || '_id_seq') THEN 'serial'
                    WHEN data_type = 'character varying' THEN format('varchar(%s)', character_maximum_length)
                    WHEN data_type = 'timestamp without time zone' THEN 'timestamp'
                    ELSE data_type END,
               CASE is_nullable WHEN 'NO' THEN 'required' ELSE 'optional' END
        FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name <> 'alembic_version'
        ORDER BY table_name COLLATE "C", ordinal_position
        """,
    )
    assert [" ".join(row) for row in found] == [" ".join(line.split()) for line in _COLUMNS.splitlines() if line]


async def test_every_foreign_key_is_the_first_column_of_an_index(conn: Connection) -> None:
    found = await fetch(
        conn,
        """
        SELECT conname FROM pg_constraint
        WHERE contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index WHERE indrelid = conrelid AND indisvalid AND indkey[0] = conkey[1]
              AND (indpred IS NULL OR pg_get_expr(indpred, indrelid) LIKE '% IS NOT NULL)')
        )
        """,
    )
    assert found == []


async def test_every_index_of_the_plan_is_there(conn: Connection) -> None:
    found = await fetch(
        conn,
        """
        SELECT tablename || ' ' || regexp_replace(indexdef, '^CREATE (UNIQUE )?INDEX \\S+ ON \\S+ USING ', '\\1')
        FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey' AND tablename <> 'alembic_version'
        """,
    )
    assert {text for (text,) in found} == {
        "videos UNIQUE btree (identifier)",
        "videos hash (source_url)",
        "videos btree (created_at, id)",
        "transcripts UNIQUE btree (video_id)",
        "transcripts gin (to_tsvector('english'::regconfig, full_text)) WITH (fastupdate=off)",
        "moments UNIQUE btree (identifier)",
        "moments btree (video_id, start_time)",
        "moments btree (is_refined)",
        "moments btree (parent_id)",
        "moments btree (generation_config_id)",
        "moments btree (score) WHERE (score IS NOT NULL)",
        "moments btree (start_time, end_time)",
        "prompts UNIQUE btree (prompt_hash)",
        "generation_configs UNIQUE btree (config_hash)",
        "generation_configs btree (prompt_id)",
        "generation_configs btree (transcript_id)",
        "generation_configs btree (model)",
        "generation_configs btree (operation_type)",
        "clips UNIQUE btree (moment_id)",
        "clips btree (video_id)",
        "thumbnails UNIQUE btree (video_id) WHERE (video_id IS NOT NULL)",
        "thumbnails UNIQUE btree (clip_id) WHERE (clip_id IS NOT NULL)",
        "pipeline_history UNIQUE btree (identifier)",
        "pipeline_history btree (video_id, started_at)",
        "pipeline_history btree (generation_config_id)",
        "pipeline_history btree (status)",
        "pipeline_history btree (started_at)",
    }


async def test_names_follow_the_rules(conn: Connection) -> None:
    found = await fetch(
        conn,
        """
        SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace
          AND conname !~ ('^' || conrelid::regclass || '_(.+_(key|fkey|check)|pkey)$')
          AND contype <> 'n' AND conrelid <> 'alembic_version'::regclass
        UNION SELECT indexname FROM pg_indexes
        WHERE schemaname = 'public' AND indexname !~ ('^idx_' || tablename || '_')
          AND indexname NOT IN (SELECT conname FROM pg_constraint)
        """,
    )
    assert found == []
