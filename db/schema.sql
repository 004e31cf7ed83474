-- The schema of VideoMoments. The migrations produce the same one: a test compares the two.
--
-- All times are UTC. Every constraint has a name, by which the code maps a violation to an error.
-- Every foreign key is the first column of an index, so that a delete cascades without a scan.
--
--   videos ─┬─ transcripts ─── generation_configs ─── prompts
--           ├─ moments (parent: moments) ─── clips ─── thumbnails
--           ├─ thumbnails
--           └─ pipeline_history

-- ======================================================================================================== videos ==
-- One row for each video. All other rows belong to one.

CREATE TABLE videos (
    id               serial           CONSTRAINT videos_pkey PRIMARY KEY,
    identifier       varchar(255)     COLLATE "C" NOT NULL  -- in URLs: "motivation"; ordered by bytes
                                      CONSTRAINT videos_identifier_key UNIQUE,
    source_url       text,                        -- the URL it was downloaded from
    cloud_url        text             NOT NULL,   -- the URL of the file: gs://… or file:///…
    title            varchar(500),
    duration_seconds double precision CONSTRAINT videos_duration_seconds_check
                                      CHECK (duration_seconds >= 0 AND duration_seconds < 'infinity'),
    file_size_kb     bigint,
    video_codec      varchar(50),
    audio_codec      varchar(50),
    resolution       varchar(20),                 -- "1920x1080"
    frame_rate       double precision CONSTRAINT videos_frame_rate_check
                                      CHECK (frame_rate >= 0 AND frame_rate < 'infinity'),
    created_at       timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE INDEX idx_videos_source_url ON videos USING hash (source_url);  -- hash: a long URL does not fit into a B-tree
CREATE INDEX idx_videos_created_at_id ON videos (created_at, id);

-- Normalizes identifiers to NFC: file names have composed letters on Linux and Windows, decomposed ones on macOS.
CREATE FUNCTION videos_compose_identifier() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.identifier := normalize(NEW.identifier, NFC);
    RETURN NEW;
END
$$;

CREATE TRIGGER videos_compose_identifier BEFORE INSERT OR UPDATE OF identifier ON videos
FOR EACH ROW EXECUTE FUNCTION videos_compose_identifier();

-- =================================================================================================== transcripts ==
-- The speech of a video, at most one row for each. Never updated: a new transcription is a new row with a new id.

CREATE TABLE transcripts (
    id                      serial      CONSTRAINT transcripts_pkey PRIMARY KEY,
    video_id                integer     NOT NULL CONSTRAINT transcripts_video_id_key UNIQUE
                                        CONSTRAINT transcripts_video_id_fkey
                                        REFERENCES videos ON DELETE CASCADE,
    full_text               text        NOT NULL,
    word_timestamps         jsonb       NOT NULL,  -- [{"word", "start", "end"}], seconds
    segment_timestamps      jsonb       NOT NULL,  -- [{"text", "start", "end", "word_count"}], seconds
    language                varchar(10) NOT NULL DEFAULT 'en',
    number_of_words         integer,
    number_of_segments      integer,
    transcription_service   varchar(50),           -- "whisper", "parakeet"
    processing_time_seconds double precision,
    created_at              timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

-- Without a pending list, whose length raises the estimated cost of the index until a sequential scan looks cheaper.
CREATE INDEX idx_transcripts_full_text ON transcripts
USING gin (to_tsvector('english', full_text)) WITH (fastupdate = off);

-- ======================================================================================================= prompts ==
-- The texts of model prompts. Never updated.

CREATE TABLE prompts (
    id            serial      CONSTRAINT prompts_pkey PRIMARY KEY,
    user_prompt   text        NOT NULL,
    system_prompt text        NOT NULL,
    prompt_hash   varchar(64) NOT NULL CONSTRAINT prompts_prompt_hash_key UNIQUE,  -- SHA-256 of user || system
    created_at    timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

-- ============================================================================================ generation_configs ==
-- A prompt with the parameters of a model call, shared by all calls with the same ones.

CREATE TABLE generation_configs (
    id                serial           CONSTRAINT generation_configs_pkey PRIMARY KEY,
    prompt_id         integer          NOT NULL CONSTRAINT generation_configs_prompt_id_fkey
                                       REFERENCES prompts ON DELETE CASCADE,
    transcript_id     integer          CONSTRAINT generation_configs_transcript_id_fkey
                                       REFERENCES transcripts ON DELETE CASCADE,  -- null if shared by several
    model             varchar(100)     NOT NULL,  -- key of the model registry, or the name of the local engine
    operation_type    varchar(50)      NOT NULL,  -- "generation", "refinement"
    temperature       double precision,
    top_p             double precision,
    top_k             integer,
    min_moment_length double precision,           -- seconds
    max_moment_length double precision,           -- seconds
    min_moments       integer,
    max_moments       integer,
    config_hash       varchar(64)      NOT NULL CONSTRAINT generation_configs_config_hash_key UNIQUE,
    created_at        timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE INDEX idx_generation_configs_prompt_id ON generation_configs (prompt_id);
CREATE INDEX idx_generation_configs_transcript_id ON generation_configs (transcript_id);
CREATE INDEX idx_generation_configs_model ON generation_configs (model);
CREATE INDEX idx_generation_configs_operation_type ON generation_configs (operation_type);

-- ======================================================================================================= moments ==
-- A part of a video. A refined moment is a row of its own, with the moment that it refines as its parent.

CREATE TABLE moments (
    id                   serial           CONSTRAINT moments_pkey PRIMARY KEY,
    identifier           varchar(20)      NOT NULL CONSTRAINT moments_identifier_key UNIQUE,  -- in URLs, 16 hex
    video_id             integer          NOT NULL CONSTRAINT moments_video_id_fkey
                                          REFERENCES videos ON DELETE CASCADE,
    start_time           double precision NOT NULL,  -- seconds
    end_time             double precision NOT NULL,  -- seconds
    title                varchar(500)     NOT NULL,
    is_refined           boolean          NOT NULL DEFAULT false,
    parent_id            integer          CONSTRAINT moments_parent_id_fkey
                                          REFERENCES moments ON DELETE SET NULL,
    generation_model     varchar(100),               -- as reported by the model
    generation_config_id integer          CONSTRAINT moments_generation_config_id_fkey
                                          REFERENCES generation_configs ON DELETE CASCADE,  -- null: added by hand
    score                integer          CONSTRAINT moments_score_check CHECK (score >= 0 AND score <= 10),
    scoring_model        varchar(100),
    scored_at            timestamp,
    created_at           timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at           timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    CONSTRAINT moments_times_check CHECK (end_time > start_time),
    -- NaN sorts above infinity, so one comparison rejects both.
    CONSTRAINT moments_times_finite_check CHECK (start_time > '-infinity' AND end_time < 'infinity')
);

CREATE INDEX idx_moments_video_id_start_time ON moments (video_id, start_time);
CREATE INDEX idx_moments_is_refined ON moments (is_refined);
CREATE INDEX idx_moments_parent_id ON moments (parent_id);
CREATE INDEX idx_moments_generation_config_id ON moments (generation_config_id);
CREATE INDEX idx_moments_score ON moments (score) WHERE score IS NOT NULL;
CREATE INDEX idx_moments_start_time_end_time ON moments (start_time, end_time);

CREATE FUNCTION moments_set_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now() AT TIME ZONE 'utc';
    RETURN NEW;
END
$$;

CREATE TRIGGER moments_set_updated_at BEFORE UPDATE ON moments
FOR EACH ROW EXECUTE FUNCTION moments_set_updated_at();

-- Returns the second that no moment of a video may end after: the duration of its file, else the end of the last word
-- of its transcript, else null.
CREATE FUNCTION videos_end(video videos) RETURNS double precision
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
$$;

-- Adds a moment that ends inside its video and overlaps no other. Returns no row for an unknown video, and no
-- identifier where the moment ends after the video or overlaps the other moment. The first statement locks the video,
-- and the second sees what was committed meanwhile, so of two concurrent calls for one span one succeeds.
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
    SELECT videos.id, videos_end(videos) INTO new_video_id, video_duration
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
$$;

-- ========================================================================================================= clips ==
-- The video file that was cut for a moment, with padding: at most one for each moment.

CREATE TABLE clips (
    id            serial           CONSTRAINT clips_pkey PRIMARY KEY,
    moment_id     integer          NOT NULL CONSTRAINT clips_moment_id_key UNIQUE
                                   CONSTRAINT clips_moment_id_fkey REFERENCES moments ON DELETE CASCADE,
    video_id      integer          NOT NULL CONSTRAINT clips_video_id_fkey REFERENCES videos ON DELETE CASCADE,
    cloud_url     text             NOT NULL,
    start_time    double precision NOT NULL,            -- seconds in the video, padding included
    end_time      double precision NOT NULL,            -- seconds in the video, padding included
    padding_left  double precision NOT NULL DEFAULT 0,  -- seconds before the moment
    padding_right double precision NOT NULL DEFAULT 0,  -- seconds after the moment
    file_size_kb  bigint,
    format        varchar(20),                          -- "mp4", "webm"
    video_codec   varchar(50),
    audio_codec   varchar(50),
    resolution    varchar(20),
    created_at    timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    CONSTRAINT clips_times_check CHECK (end_time > start_time),
    CONSTRAINT clips_times_finite_check CHECK (start_time > '-infinity' AND end_time < 'infinity')
);

CREATE INDEX idx_clips_video_id ON clips (video_id);

-- ==================================================================================================== thumbnails ==
-- The thumbnail of a video or of a clip, never of both.

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
);

CREATE UNIQUE INDEX idx_thumbnails_video_id ON thumbnails (video_id) WHERE video_id IS NOT NULL;
CREATE UNIQUE INDEX idx_thumbnails_clip_id ON thumbnails (clip_id) WHERE clip_id IS NOT NULL;

-- ============================================================================================== pipeline_history ==
-- All runs of the pipeline, from their acceptance.

CREATE TABLE pipeline_history (
    id                      serial           CONSTRAINT pipeline_history_pkey PRIMARY KEY,
    identifier              varchar(100)     NOT NULL CONSTRAINT pipeline_history_identifier_key UNIQUE,
    video_id                integer          NOT NULL CONSTRAINT pipeline_history_video_id_fkey
                                             REFERENCES videos ON DELETE CASCADE,
    generation_config_id    integer          CONSTRAINT pipeline_history_generation_config_id_fkey
                                             REFERENCES generation_configs ON DELETE CASCADE,
    pipeline_type           varchar(50)      NOT NULL,  -- "full", "moments_only", "clips_only"
    status                  varchar(20)      NOT NULL,  -- running -> completed | partial | failed | cancelled
    started_at              timestamp        NOT NULL,
    completed_at            timestamp,                  -- null while it runs
    duration_seconds        double precision,
    total_moments_generated integer,
    total_clips_created     integer,
    error_stage             varchar(50),
    error_message           text,
    created_at              timestamp        NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE INDEX idx_pipeline_history_video_id_started_at ON pipeline_history (video_id, started_at);
CREATE INDEX idx_pipeline_history_generation_config_id ON pipeline_history (generation_config_id);
CREATE INDEX idx_pipeline_history_status ON pipeline_history (status);
CREATE INDEX idx_pipeline_history_started_at ON pipeline_history (started_at);

-- ====================================================================================================== pipeline ==
-- The queue of the runs in pipeline_history, and other state of their processing.

CREATE SCHEMA pipeline;

-- One row for each run, with the stage that it is at. A stage is claimed by pipeline.claim_stage. Every write of a
-- worker names run, owner, stage and attempt, so that a worker that has lost the stage writes nothing.
CREATE TABLE pipeline.runs (
    run_id            integer     CONSTRAINT runs_pkey PRIMARY KEY
                                  CONSTRAINT runs_run_id_fkey REFERENCES public.pipeline_history ON DELETE CASCADE,
    subject           varchar(20) NOT NULL DEFAULT '',    -- identifier of the moment to refine; '' for a whole video
    request           jsonb       NOT NULL,               -- the options of the run, used again by a retry
    stages            jsonb       NOT NULL DEFAULT '{}',  -- {"audio": {"status", "started_at", "completed_at", …}, …}
    stage             varchar(50),                        -- the stage to claim or in progress, or the last one
    attempt           integer     NOT NULL DEFAULT 0,     -- claims and retries of this stage
    owner             varchar(100),                       -- the worker that has claimed it; null: waiting, or ended
    heartbeat_at      timestamp,                          -- last heartbeat of the owner
    notified_at       timestamp,                          -- when the last message for the stage was sent
    cancel_requested  boolean     NOT NULL DEFAULT false, -- stays true after the run has ended
    raw_answer        text,                               -- answer of a model that could not be used
    callback_status   varchar(20) CONSTRAINT runs_callback_status_check  -- waiting -> delivered | failed; null: none
                                  CHECK (callback_status IN ('waiting', 'delivered', 'failed')),
    callback_attempts integer     NOT NULL DEFAULT 0,
    callback_due_at   timestamp,                          -- set when the run ends
    callback_error    text,
    last_error        text                                -- why the previous attempt failed
);

CREATE INDEX idx_runs_callback_due_at ON pipeline.runs (callback_due_at) WHERE callback_due_at IS NOT NULL;
CREATE INDEX idx_runs_owner ON pipeline.runs (owner) WHERE owner IS NOT NULL;

-- Rows that an active run has replaced, as JSON: discarded when it completes, else restored.
CREATE TABLE pipeline.replaced (
    run_id     integer   CONSTRAINT replaced_pkey PRIMARY KEY
                         CONSTRAINT replaced_run_id_fkey REFERENCES public.pipeline_history ON DELETE CASCADE,
    moments    jsonb     NOT NULL,
    clips      jsonb     NOT NULL,
    thumbnails jsonb     NOT NULL,
    made       integer[] NOT NULL  -- ids of the new moments
);

-- Model answers of runs that have not completed, so that a retry does not pay for them again.
CREATE TABLE pipeline.answers (
    run_id   integer CONSTRAINT answers_run_id_fkey REFERENCES public.pipeline_history ON DELETE CASCADE,
    question jsonb,             -- all that the answer depends on: transcript, config, times of a refined moment
    answer   jsonb   NOT NULL,  -- the model's name and the moments, or the refined times
    CONSTRAINT answers_pkey PRIMARY KEY (run_id, question)
);

-- Videos whose first download has not succeeded. Lists leave them out; their runs are visible and can be retried.
CREATE TABLE pipeline.pending_videos (
    video_id integer CONSTRAINT pending_videos_pkey PRIMARY KEY
                     CONSTRAINT pending_videos_video_id_fkey REFERENCES public.videos ON DELETE CASCADE
);

-- Entries of the stream pipeline:requests that were rejected.
CREATE TABLE pipeline.rejected_requests (
    id          bigserial   CONSTRAINT rejected_requests_pkey PRIMARY KEY,
    entry_id    varchar(50) NOT NULL CONSTRAINT rejected_requests_entry_id_key UNIQUE,  -- in the stream: "1764-0"
    fields      jsonb       NOT NULL,  -- the fields of the entry
    reason      text        NOT NULL,
    received_at timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

-- Accepts a run at its stage new_stage, unless a conflicting run is active: any run if either of the two is a full run,
-- else one of the same type and subject. Returns no row for an unknown video, and no run_id for a conflict.
-- The video's row is locked, so of two concurrent calls for conflicting runs one succeeds.
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
$$;

-- Claims the stage "wanted" of a run for a worker, if the run is at that stage and the stage has no owner, or one whose
-- last heartbeat is older than stalled_after seconds. Returns one row with the verdict 'claimed' and the run; no row if
-- there is nothing to claim; one row with the verdict 'full' and nulls if at least "most" other runs are in this stage
-- with an owner that is not stalled. The record of a stage refused for that reason becomes "waiting".
--
-- The run's row is locked first. A claim that waited for that lock sees the latest row of pipeline.runs, but the row of
-- pipeline_history as it was before: its status is therefore read again. The limit is then checked under the advisory
-- lock with the key hashtextextended('stages:' || stage, 0), held until the end of the transaction. No row lock is
-- waited for under it, so claims cannot deadlock, and a locked run delays no claim of another run.
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
$$;

-- A data-only dump contains the revision of its database: on restore, that of this one is kept. The trigger is on
-- Alembic's table, which the migrations create: BEFORE INSERT ON alembic_version FOR EACH ROW.
CREATE FUNCTION pipeline.skip_other_version() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM public.alembic_version) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;

-- ======================================================================================================= library ==
-- Further state of video files. A worker inspects each file once, and makes a playable copy where browsers cannot play
-- it. The original is kept, and used by runs.

CREATE SCHEMA library;

CREATE TABLE library.video_files (
    video_id         integer     CONSTRAINT video_files_pkey PRIMARY KEY
                                 CONSTRAINT video_files_video_id_fkey REFERENCES public.videos ON DELETE CASCADE,
    source_url       text        NOT NULL,       -- the file that the row describes: cloud_url, unless that has changed
    declared_seconds double precision,           -- duration in its header, where the file ends before
    status           varchar(20) NOT NULL DEFAULT 'waiting' CONSTRAINT video_files_status_check
                                 CHECK (status IN (
                                     'waiting',     -- -> inspecting
                                     'inspecting',  -- -> making, unneeded, failed, waiting
                                     'making',      -- -> ready, failed, waiting
                                     'ready', 'unneeded', 'failed'
                                 )),
    playable_url     text        CONSTRAINT video_files_playable_url_check
                                 CHECK ((playable_url IS NOT NULL) = (status = 'ready')),
    reason           text,                       -- why it failed, in a sentence
    attempts         integer     NOT NULL DEFAULT 0,
    owner            varchar(100),               -- the worker that has claimed it
    seen_at          timestamp,                  -- its last heartbeat
    due_at           timestamp,                  -- when it may be claimed again
    ends_early       boolean     NOT NULL DEFAULT false,  -- the file is truncated
    failures         integer     NOT NULL DEFAULT 0       -- failed writes of the copy
);

-- How many transactions have changed what the list of all videos shows: their sum is a version of the list, with which
-- servers keep its JSON. A counter of its own for each concurrent writer, so that none waits for another: the number of
-- rows is that of the most writers at once. Restoring a dump adds its counters to those of the triggers.
CREATE TABLE library.video_list_changes (
    slot         uuid   DEFAULT gen_random_uuid() CONSTRAINT video_list_changes_pkey PRIMARY KEY,
    transactions bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 10);

-- Counts the transaction once. A counter that was updated since a snapshot that holds for the whole transaction cannot
-- be updated under it, so such a transaction gets a new one.
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
$$;

CREATE TRIGGER videos_count_list_change AFTER INSERT OR DELETE OR UPDATE OF
    identifier, source_url, cloud_url, title, duration_seconds, file_size_kb, video_codec, audio_codec
ON videos FOR EACH ROW EXECUTE FUNCTION library.count_video_list_change();

CREATE TRIGGER transcripts_count_list_change AFTER INSERT OR DELETE OR UPDATE OF video_id
ON transcripts FOR EACH ROW EXECUTE FUNCTION library.count_video_list_change();

CREATE TRIGGER thumbnails_count_list_addition AFTER INSERT OR UPDATE OF video_id
ON thumbnails FOR EACH ROW WHEN (NEW.video_id IS NOT NULL) EXECUTE FUNCTION library.count_video_list_change();

CREATE TRIGGER thumbnails_count_list_removal AFTER DELETE OR UPDATE OF video_id
ON thumbnails FOR EACH ROW WHEN (OLD.video_id IS NOT NULL) EXECUTE FUNCTION library.count_video_list_change();

CREATE TRIGGER pending_videos_count_list_change AFTER INSERT OR DELETE OR UPDATE OF video_id
ON pipeline.pending_videos FOR EACH ROW EXECUTE FUNCTION library.count_video_list_change();

CREATE TRIGGER videos_count_list_truncation
AFTER TRUNCATE ON videos FOR EACH STATEMENT EXECUTE FUNCTION library.count_video_list_change();

CREATE TRIGGER transcripts_count_list_truncation
AFTER TRUNCATE ON transcripts FOR EACH STATEMENT EXECUTE FUNCTION library.count_video_list_change();

CREATE TRIGGER thumbnails_count_list_truncation
AFTER TRUNCATE ON thumbnails FOR EACH STATEMENT EXECUTE FUNCTION library.count_video_list_change();

CREATE TRIGGER pending_videos_count_list_truncation
AFTER TRUNCATE ON pipeline.pending_videos FOR EACH STATEMENT EXECUTE FUNCTION library.count_video_list_change();

-- ======================================================================================================== search ==
-- Derived data for searching and serving transcripts, made from the tables above. Triggers mark what is new or changed
-- (index_version 0); workers index it then, and searches where it is little. `db rebuild-search` makes all of it again.

CREATE SCHEMA search;

CREATE TABLE search.transcripts (
    transcript_id   integer  CONSTRAINT transcripts_pkey PRIMARY KEY
                             CONSTRAINT transcripts_transcript_id_fkey
                             REFERENCES public.transcripts ON DELETE CASCADE,
    word_timestamps text     NOT NULL,  -- JSON: printing jsonb takes longer than the rest of a response
    index_version   integer  NOT NULL DEFAULT 0  -- of its passages; 0 where they are missing or out of date, -1 in a rebuild
);

ALTER TABLE search.transcripts ALTER COLUMN word_timestamps SET STORAGE EXTERNAL;  -- decompressing would take longer

CREATE INDEX idx_transcripts_index_version ON search.transcripts (index_version);

-- Overlapping windows of a transcript. In `document`, positions count the words of `text` that are not punctuation.
CREATE TABLE search.passages (
    id            bigint    GENERATED BY DEFAULT AS IDENTITY CONSTRAINT passages_pkey PRIMARY KEY,
    transcript_id integer   NOT NULL CONSTRAINT passages_transcript_id_fkey
                            REFERENCES public.transcripts ON DELETE CASCADE,
    position      integer   NOT NULL,  -- in the transcript, from 1
    text          text      NOT NULL,
    word_starts   integer[],  -- milliseconds, of each word of `text`; NULL where the times are unknown
    word_ends     integer[],  -- milliseconds
    speakers      text[]    NOT NULL DEFAULT '{}',  -- of the segments in which it is said, where they are known
    document      tsvector  NOT NULL,
    CONSTRAINT passages_transcript_id_position_key UNIQUE (transcript_id, position)
) WITH (toast_tuple_target = 128);  -- wide columns lie elsewhere: the rows of a thousand matches are on few pages

CREATE INDEX idx_passages_document ON search.passages USING gin (document) WITH (fastupdate = off);

-- One row for each video and each moment.
CREATE TABLE search.titles (
    id            bigint    GENERATED BY DEFAULT AS IDENTITY CONSTRAINT titles_pkey PRIMARY KEY,
    video_id      integer   CONSTRAINT titles_video_id_key UNIQUE
                            CONSTRAINT titles_video_id_fkey REFERENCES videos ON DELETE CASCADE,
    moment_id     integer   CONSTRAINT titles_moment_id_key UNIQUE
                            CONSTRAINT titles_moment_id_fkey REFERENCES moments ON DELETE CASCADE,
    index_version integer   NOT NULL DEFAULT 0,
    document      tsvector  NOT NULL DEFAULT '',
    CONSTRAINT chk_one_owner CHECK (num_nonnulls(video_id, moment_id) = 1)
);

CREATE INDEX idx_titles_index_version ON search.titles (index_version);

CREATE INDEX idx_titles_document ON search.titles USING gin (document) WITH (fastupdate = off);

-- How many documents have a word, counted anew whenever their number has grown by a tenth.
CREATE TABLE search.words (
    word      text    COLLATE "C" CONSTRAINT words_pkey PRIMARY KEY,  -- a lexeme of the documents
    documents integer NOT NULL
);

-- At most one row.
CREATE TABLE search.state (
    is_only_row       boolean NOT NULL DEFAULT true CONSTRAINT state_pkey PRIMARY KEY
                              CONSTRAINT chk_is_only_row CHECK (is_only_row),
    counted_documents integer NOT NULL DEFAULT 0,   -- passages and titles, when the words were counted
    added_documents   integer NOT NULL DEFAULT 0,   -- since then
    stemmers          text[]  NOT NULL DEFAULT '{}',  -- text search dictionaries of the languages of all transcripts
    embedding_model   text,      -- whose vectors are searched
    next_embedding_model text    -- to be searched once all passages have its vectors
);

-- Passages that wait for vectors of the wanted model.
CREATE TABLE search.unembedded (
    passage_id    bigint    CONSTRAINT unembedded_pkey PRIMARY KEY
                            CONSTRAINT unembedded_passage_id_fkey
                            REFERENCES search.passages ON DELETE CASCADE,
    claimed_until timestamp NOT NULL DEFAULT '-infinity'  -- by a worker
);

CREATE INDEX idx_unembedded_claimed_until ON search.unembedded (claimed_until, passage_id DESC);

CREATE FUNCTION search.follow_transcript() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search.transcripts (transcript_id, word_timestamps) VALUES (NEW.id, NEW.word_timestamps::text)
    ON CONFLICT (transcript_id) DO UPDATE SET word_timestamps = EXCLUDED.word_timestamps, index_version = 0;
    IF TG_OP = 'INSERT' OR NEW.language IS DISTINCT FROM OLD.language THEN
        UPDATE search.titles SET index_version = 0 WHERE video_id = NEW.video_id;
        UPDATE search.titles SET index_version = 0
        WHERE moment_id IN (SELECT id FROM public.moments WHERE video_id = NEW.video_id);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER transcripts_follow
AFTER INSERT OR UPDATE OF full_text, word_timestamps, segment_timestamps, language ON transcripts
FOR EACH ROW EXECUTE FUNCTION search.follow_transcript();

CREATE FUNCTION search.follow_video_title() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search.titles (video_id) VALUES (NEW.id)
    ON CONFLICT (video_id) DO UPDATE SET index_version = 0;
    RETURN NULL;
END
$$;

CREATE TRIGGER videos_follow_title
AFTER INSERT OR UPDATE OF title, identifier ON videos
FOR EACH ROW EXECUTE FUNCTION search.follow_video_title();

CREATE FUNCTION search.follow_moment_title() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search.titles (moment_id) VALUES (NEW.id)
    ON CONFLICT (moment_id) DO UPDATE SET index_version = 0;
    RETURN NULL;
END
$$;

CREATE TRIGGER moments_follow_title
AFTER INSERT OR UPDATE OF title ON moments
FOR EACH ROW EXECUTE FUNCTION search.follow_moment_title();

-- A data-only dump contains the rows of this schema too. When they are restored, the triggers above have created them
-- from the transcripts and titles: rows that exist are skipped. Inserts of a trigger itself are not checked.
CREATE FUNCTION search.skip_existing_transcript() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM search.transcripts WHERE transcript_id = NEW.transcript_id) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION search.skip_existing_title() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM search.titles WHERE video_id = NEW.video_id OR moment_id = NEW.moment_id) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER transcripts_skip_existing BEFORE INSERT ON search.transcripts
FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION search.skip_existing_transcript();

CREATE TRIGGER titles_skip_existing BEFORE INSERT ON search.titles
FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION search.skip_existing_title();

-- What finds words that are spelt alike, for which pg_trgm is needed. Returns why it is not available, or NULL. Without
-- it searches suggest no other spelling, and everything else works.
CREATE FUNCTION search.enable_spelling() RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
        CREATE EXTENSION pg_trgm SCHEMA public;
    END IF;
    CREATE INDEX IF NOT EXISTS idx_words_trigrams ON search.words USING gin (word gin_trgm_ops);
    RETURN NULL;
EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_object OR undefined_file THEN
    RETURN SQLERRM;
END
$$;

DO $$
DECLARE
    reason text := search.enable_spelling();
BEGIN
    IF reason IS NOT NULL THEN
        RAISE NOTICE USING MESSAGE = 'Searches suggest no other spelling: ' || reason;
    END IF;
END
$$;

-- What finds passages by meaning, for which pgvector 0.8 or newer is needed. Returns why it is not available, or NULL.
-- Vectors of other lengths are found too, by reading all of them.
CREATE FUNCTION search.enable_vectors() RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') THEN
        CREATE EXTENSION vector SCHEMA public;
        DROP TABLE IF EXISTS search.vectors;
    END IF;
    IF (SELECT string_to_array(extversion, '.')::integer[] FROM pg_extension WHERE extname = 'vector')
       < ARRAY[0, 8] THEN
        RAISE feature_not_supported USING MESSAGE = 'pgvector must be 0.8 or newer';
    END IF;
    IF to_regclass('search.vectors') IS NULL THEN
        CREATE TABLE search.vectors (
            passage_id bigint  NOT NULL CONSTRAINT vectors_passage_id_fkey
                               REFERENCES search.passages ON DELETE CASCADE,
            model      text    NOT NULL,
            first_word integer NOT NULL,
            last_word  integer NOT NULL,
            embedding  halfvec NOT NULL,
            CONSTRAINT vectors_pkey PRIMARY KEY (passage_id, model, first_word)
        );
        CREATE INDEX idx_vectors_embedding_384 ON search.vectors
        USING hnsw ((embedding::halfvec(384)) halfvec_cosine_ops) WHERE vector_dims(embedding) = 384;
        CREATE INDEX idx_vectors_embedding_768 ON search.vectors
        USING hnsw ((embedding::halfvec(768)) halfvec_cosine_ops) WHERE vector_dims(embedding) = 768;
        CREATE INDEX idx_vectors_embedding_1024 ON search.vectors
        USING hnsw ((embedding::halfvec(1024)) halfvec_cosine_ops) WHERE vector_dims(embedding) = 1024;
        CREATE INDEX idx_vectors_embedding_1536 ON search.vectors
        USING hnsw ((embedding::halfvec(1536)) halfvec_cosine_ops) WHERE vector_dims(embedding) = 1536;
        INSERT INTO search.unembedded (passage_id) SELECT id FROM search.passages ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_object OR undefined_file THEN
    RETURN SQLERRM;
END
$$;

DO $$
DECLARE
    reason text := search.enable_vectors();
BEGIN
    IF reason IS NOT NULL THEN
        RAISE NOTICE USING MESSAGE = 'Nothing is found by meaning: ' || reason;
    END IF;
END
$$;
