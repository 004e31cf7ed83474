"""Create all tables.

Revision ID: 0001
Revises: nothing
Create Date: 2026-11-22
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE videos (
            id               serial           CONSTRAINT videos_pkey PRIMARY KEY,
            identifier       varchar(255)     NOT NULL CONSTRAINT videos_identifier_key UNIQUE,
            source_url       text,
            cloud_url        text             NOT NULL,
            title            varchar(500),
            duration_seconds double precision CONSTRAINT videos_duration_seconds_check
                                              CHECK (duration_seconds >= 0 AND duration_seconds < 'infinity'),
            file_size_kb     bigint,
            video_codec      varchar(50),
            audio_codec      varchar(50),
            resolution       varchar(20),
            frame_rate       double precision CONSTRAINT videos_frame_rate_check
                                              CHECK (frame_rate >= 0 AND frame_rate < 'infinity'),
            created_at       timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
        )
        """
    )
    op.execute("CREATE INDEX idx_videos_source_url ON videos USING hash (source_url)")
    op.execute("CREATE INDEX idx_videos_created_at_id ON videos (created_at, id)")
    op.execute(
        """
        CREATE TABLE transcripts (
            id                      serial      CONSTRAINT transcripts_pkey PRIMARY KEY,
            video_id                integer     NOT NULL CONSTRAINT transcripts_video_id_key UNIQUE
                                                CONSTRAINT transcripts_video_id_fkey
                                                REFERENCES videos ON DELETE CASCADE,
            full_text               text        NOT NULL,
            word_timestamps         jsonb       NOT NULL,
            segment_timestamps      jsonb       NOT NULL,
            language                varchar(10) NOT NULL DEFAULT 'en',
            number_of_words         integer,
            number_of_segments      integer,
            transcription_service   varchar(50),
            processing_time_seconds double precision,
            created_at              timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
        )
        """
    )
    op.execute(
        """
        CREATE INDEX idx_transcripts_full_text ON transcripts
        USING gin (to_tsvector('english', full_text)) WITH (fastupdate = off)
        """
    )
    op.execute(
        """
        CREATE TABLE prompts (
            id            serial      CONSTRAINT prompts_pkey PRIMARY KEY,
            user_prompt   text        NOT NULL,
            system_prompt text        NOT NULL,
            prompt_hash   varchar(64) NOT NULL CONSTRAINT prompts_prompt_hash_key UNIQUE,
            created_at    timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
        )
        """
    )
    op.execute(
        """
        CREATE TABLE generation_configs (
            id                serial           CONSTRAINT generation_configs_pkey PRIMARY KEY,
            prompt_id         integer          NOT NULL CONSTRAINT generation_configs_prompt_id_fkey
                                               REFERENCES prompts ON DELETE CASCADE,
            transcript_id     integer          CONSTRAINT generation_configs_transcript_id_fkey
                                               REFERENCES transcripts ON DELETE CASCADE,
            model             varchar(100)     NOT NULL,
            operation_type    varchar(50)      NOT NULL,
            temperature       double precision,
            top_p             double precision,
            top_k             integer,
            min_moment_length double precision,
            max_moment_length double precision,
            min_moments       integer,
            max_moments       integer,
            config_hash       varchar(64)      NOT NULL CONSTRAINT generation_configs_config_hash_key UNIQUE,
            created_at        timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
        )
        """
    )
    op.execute("CREATE INDEX idx_generation_configs_prompt_id ON generation_configs (prompt_id)")
    op.execute("CREATE INDEX idx_generation_configs_transcript_id ON generation_configs (transcript_id)")
    op.execute("CREATE INDEX idx_generation_configs_model ON generation_configs (model)")
    op.execute("CREATE INDEX idx_generation_configs_operation_type ON generation_configs (operation_type)")
    op.execute(
        """
        CREATE TABLE moments (
            id                   serial           CONSTRAINT moments_pkey PRIMARY KEY,
            identifier           varchar(20)      NOT NULL CONSTRAINT moments_identifier_key UNIQUE,
            video_id             integer          NOT NULL CONSTRAINT moments_video_id_fkey
                                                  REFERENCES videos ON DELETE CASCADE,
            start_time           double precision NOT NULL,
            end_time             double precision NOT NULL,
            title                varchar(500)     NOT NULL,
            is_refined           boolean          NOT NULL DEFAULT false,
            parent_id            integer          CONSTRAINT moments_parent_id_fkey
                                                  REFERENCES moments ON DELETE SET NULL,
            generation_model     varchar(100),
            generation_config_id integer          CONSTRAINT moments_generation_config_id_fkey
                                                  REFERENCES generation_configs ON DELETE CASCADE,
            score                integer          CONSTRAINT moments_score_check CHECK (score >= 0 AND score <= 10),
            scoring_model        varchar(100),
            scored_at            timestamp,
            created_at           timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
            updated_at           timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
            CONSTRAINT moments_times_check CHECK (end_time > start_time),
            CONSTRAINT moments_times_finite_check CHECK (start_time > '-infinity' AND end_time < 'infinity')
        )
        """
    )
    op.execute("CREATE INDEX idx_moments_video_id_start_time ON moments (video_id, start_time)")
    op.execute("CREATE INDEX idx_moments_is_refined ON moments (is_refined)")
    op.execute("CREATE INDEX idx_moments_parent_id ON moments (parent_id)")
    op.execute("CREATE INDEX idx_moments_generation_config_id ON moments (generation_config_id)")
    op.execute("CREATE INDEX idx_moments_score ON moments (score) WHERE score IS NOT NULL")
    op.execute("CREATE INDEX idx_moments_start_time_end_time ON moments (start_time, end_time)")
    op.execute(
        """
        CREATE FUNCTION moments_set_updated_at() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := now() AT TIME ZONE 'utc';
            RETURN NEW;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER moments_set_updated_at BEFORE UPDATE ON moments
        FOR EACH ROW EXECUTE FUNCTION moments_set_updated_at()
        """
    )
    op.execute(
        """
        CREATE FUNCTION moments_add_if_free(
            video text, new_identifier text, new_start double precision, new_end double precision, new_title text
        ) RETURNS TABLE (
            video_duration double precision, identifier text, other_title text,
            other_start double precision, other_end double precision
        )
        LANGUAGE plpgsql AS $$
        DECLARE
            new_video_id integer;
        BEGIN
            SELECT videos.id, videos.duration_seconds INTO new_video_id, video_duration
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
    )
    op.execute(
        """
        CREATE TABLE clips (
            id            serial           CONSTRAINT clips_pkey PRIMARY KEY,
            moment_id     integer          NOT NULL CONSTRAINT clips_moment_id_key UNIQUE
                                           CONSTRAINT clips_moment_id_fkey REFERENCES moments ON DELETE CASCADE,
            video_id      integer          NOT NULL CONSTRAINT clips_video_id_fkey REFERENCES videos ON DELETE CASCADE,
            cloud_url     text             NOT NULL,
            start_time    double precision NOT NULL,
            end_time      double precision NOT NULL,
            padding_left  double precision NOT NULL DEFAULT 0,
            padding_right double precision NOT NULL DEFAULT 0,
            file_size_kb  bigint,
            format        varchar(20),
            video_codec   varchar(50),
            audio_codec   varchar(50),
            resolution    varchar(20),
            created_at    timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
            CONSTRAINT clips_times_check CHECK (end_time > start_time),
            CONSTRAINT clips_times_finite_check CHECK (start_time > '-infinity' AND end_time < 'infinity')
        )
        """
    )
    op.execute("CREATE INDEX idx_clips_video_id ON clips (video_id)")
    op.execute(
        """
        CREATE TABLE thumbnails (
            id           serial    CONSTRAINT thumbnails_pkey PRIMARY KEY,
            video_id     integer   CONSTRAINT thumbnails_video_id_fkey REFERENCES videos ON DELETE CASCADE,
            clip_id      integer   CONSTRAINT thumbnails_clip_id_fkey REFERENCES clips ON DELETE CASCADE,
            cloud_url    text      NOT NULL,
            file_size_kb bigint,
            created_at   timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
            CONSTRAINT thumbnails_owner_check CHECK (
                (video_id IS NOT NULL AND clip_id IS NULL) OR (video_id IS NULL AND clip_id IS NOT NULL)
            )
        )
        """
    )
    op.execute("CREATE UNIQUE INDEX idx_thumbnails_video_id ON thumbnails (video_id) WHERE video_id IS NOT NULL")
    op.execute("CREATE UNIQUE INDEX idx_thumbnails_clip_id ON thumbnails (clip_id) WHERE clip_id IS NOT NULL")
    op.execute(
        """
        CREATE TABLE pipeline_history (
            id                      serial           CONSTRAINT pipeline_history_pkey PRIMARY KEY,
            identifier              varchar(100)     NOT NULL CONSTRAINT pipeline_history_identifier_key UNIQUE,
            video_id                integer          NOT NULL CONSTRAINT pipeline_history_video_id_fkey
                                                     REFERENCES videos ON DELETE CASCADE,
            generation_config_id    integer          CONSTRAINT pipeline_history_generation_config_id_fkey
                                                     REFERENCES generation_configs ON DELETE CASCADE,
            pipeline_type           varchar(50)      NOT NULL,
            status                  varchar(20)      NOT NULL,
            started_at              timestamp        NOT NULL,
            completed_at            timestamp,
            duration_seconds        double precision,
            total_moments_generated integer,
            total_clips_created     integer,
            error_stage             varchar(50),
            error_message           text,
            created_at              timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
        )
        """
    )
    op.execute("CREATE INDEX idx_pipeline_history_video_id_started_at ON pipeline_history (video_id, started_at)")
    op.execute("CREATE INDEX idx_pipeline_history_generation_config_id ON pipeline_history (generation_config_id)")
    op.execute("CREATE INDEX idx_pipeline_history_status ON pipeline_history (status)")
    op.execute("CREATE INDEX idx_pipeline_history_started_at ON pipeline_history (started_at)")


def downgrade() -> None:
    op.execute("DROP TABLE pipeline_history")
    op.execute("DROP TABLE thumbnails")
    op.execute("DROP TABLE clips")
    op.execute("DROP TABLE moments")
    op.execute("DROP TABLE generation_configs")
    op.execute("DROP TABLE prompts")
    op.execute("DROP TABLE transcripts")
    op.execute("DROP TABLE videos")
    op.execute("DROP FUNCTION moments_set_updated_at()")
    op.execute("DROP FUNCTION moments_add_if_free(text, text, double precision, double precision, text)")
