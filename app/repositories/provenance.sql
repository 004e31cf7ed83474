-- A video and everything that was made of it, each row once, as one JSON document.
WITH RECURSIVE video AS (
    SELECT id, identifier, title, source_url, duration_seconds, file_size_kb, video_codec, audio_codec, resolution,
           frame_rate, created_at
    FROM videos WHERE identifier = %(identifier)s
),
-- A parent counts where it is another moment of the same video. `place` is the moment's in the order of time, `opening`
-- its JSON up to its refinements.
nodes AS MATERIALIZED (
    SELECT moments.id, row_number() OVER (ORDER BY moments.start_time, moments.end_time, moments.id) AS place,
           moments.generation_config_id AS config_id,
           CASE WHEN parents.video_id = moments.video_id AND parents.id <> moments.id THEN parents.id END AS parent_id,
           left(row_to_json(shown)::text, -1) || ',"refinements":[' AS opening
    FROM moments
    LEFT JOIN moments AS parents ON parents.id = moments.parent_id
    LEFT JOIN clips ON clips.moment_id = moments.id
    LEFT JOIN thumbnails ON thumbnails.clip_id = clips.id
    LEFT JOIN LATERAL (
        SELECT thumbnails.id, thumbnails.file_size_kb, thumbnails.created_at AT TIME ZONE 'UTC' AS created_at
        WHERE thumbnails.id IS NOT NULL
    ) AS thumbnail ON true
    LEFT JOIN LATERAL (
        SELECT clips.id, clips.start_time, clips.end_time, clips.padding_left, clips.padding_right, clips.file_size_kb,
               clips.format, clips.video_codec, clips.audio_codec, clips.resolution,
               clips.created_at AT TIME ZONE 'UTC' AS created_at, row_to_json(thumbnail) AS thumbnail
        WHERE clips.id IS NOT NULL
    ) AS clip ON true
    CROSS JOIN LATERAL (
        SELECT moments.identifier AS id, parents.identifier AS parent_id, moments.start_time, moments.end_time,
               moments.title, moments.is_refined, moments.generation_model AS model_name,
               moments.generation_config_id, moments.score, moments.scoring_model,
               moments.scored_at AT TIME ZONE 'UTC' AS scored_at, moments.created_at AT TIME ZONE 'UTC' AS created_at,
               moments.updated_at AT TIME ZONE 'UTC' AS updated_at, row_to_json(clip) AS clip
    ) AS shown
    WHERE moments.video_id = (SELECT id FROM video)
),
reached AS (
    SELECT id FROM nodes WHERE parent_id IS NULL
    UNION ALL
    SELECT nodes.id FROM reached JOIN nodes ON nodes.parent_id = reached.id
),
-- Moments that are their own ancestors: there is no first one, so each of them stands at the top.
climbed AS (
    SELECT id, parent_id AS ancestor FROM nodes WHERE id NOT IN (SELECT id FROM reached)
    UNION
    SELECT climbed.id, nodes.parent_id FROM climbed JOIN nodes ON nodes.id = climbed.ancestor
),
circular AS (
    SELECT id FROM climbed WHERE ancestor = id
),
tree AS (
    SELECT id, config_id, ARRAY[place] AS path
    FROM nodes WHERE parent_id IS NULL OR id IN (SELECT id FROM circular)
    UNION ALL
    SELECT nodes.id, tree.config_id, path || nodes.place
    FROM tree JOIN nodes ON nodes.parent_id = tree.id
    WHERE nodes.id NOT IN (SELECT id FROM circular)
),
-- In the order of the paths a moment is followed by its refinements; where none follows, brackets are closed up to the
-- depth of what does.
steps AS (
    SELECT id, config_id, path, cardinality(path) AS depth,
           lead(cardinality(path)) OVER (PARTITION BY config_id ORDER BY path) AS next_depth
    FROM tree
),
trees AS (
    SELECT steps.config_id, '[' || string_agg(
               opening || repeat(']}', depth - coalesce(next_depth, 1) + 1)
                       || CASE WHEN next_depth <= depth THEN ',' ELSE '' END,
               '' ORDER BY path
           ) || ']' AS moments
    FROM steps JOIN nodes USING (id)
    GROUP BY steps.config_id
),
runs AS (
    SELECT identifier AS id, generation_config_id, pipeline_type, status, started_at AT TIME ZONE 'UTC' AS started_at,
           completed_at AT TIME ZONE 'UTC' AS completed_at, duration_seconds, total_moments_generated,
           total_clips_created, error_stage, error_message, created_at AT TIME ZONE 'UTC' AS created_at
    FROM pipeline_history
    WHERE video_id = (SELECT id FROM video)
),
transcript AS (
    SELECT id, language, number_of_words, number_of_segments, transcription_service, processing_time_seconds,
           created_at AT TIME ZONE 'UTC' AS created_at
    FROM transcripts WHERE video_id = (SELECT id FROM video)
),
configs_of_prompts AS (
    SELECT prompt_id, json_agg(shown ORDER BY shown.id) AS configs
    FROM generation_configs AS config
    LEFT JOIN trees ON trees.config_id = config.id
    CROSS JOIN LATERAL (
        SELECT config.id, config.transcript_id, config.model, config.operation_type, config.temperature, config.top_p,
               config.top_k, config.min_moment_length, config.max_moment_length, config.min_moments,
               config.max_moments, config.created_at AT TIME ZONE 'UTC' AS created_at,
               coalesce(trees.moments, '[]')::json AS moments
    ) AS shown
    WHERE config.id = ANY (ARRAY(  -- an array, because a join might begin with the configs of all videos
        SELECT config_id FROM nodes
        UNION
        SELECT generation_config_id FROM runs
        UNION
        SELECT id FROM generation_configs WHERE transcript_id = (SELECT id FROM transcript)
    ))
    GROUP BY prompt_id
)
SELECT convert_to(row_to_json(document)::text, 'UTF8')
FROM (
    SELECT identifier AS id, title, source_url, duration_seconds, file_size_kb, video_codec, audio_codec, resolution,
           frame_rate, created_at AT TIME ZONE 'UTC' AS created_at,
           (
               SELECT row_to_json(shown) FROM (
                   SELECT id, file_size_kb, created_at AT TIME ZONE 'UTC' AS created_at
                   FROM thumbnails WHERE video_id = video.id
               ) AS shown
           ) AS thumbnail,
           (SELECT row_to_json(transcript) FROM transcript) AS transcript,
           (
               SELECT coalesce(json_agg(shown ORDER BY shown.id), '[]')
               FROM configs_of_prompts JOIN prompts ON prompts.id = prompt_id
               CROSS JOIN LATERAL (
                   SELECT prompts.id, user_prompt, system_prompt, prompts.created_at AT TIME ZONE 'UTC' AS created_at,
                          configs
               ) AS shown
               WHERE prompts.id = ANY (ARRAY(SELECT prompt_id FROM configs_of_prompts))
           ) AS prompts,
           coalesce((SELECT moments FROM trees WHERE config_id IS NULL), '[]')::json AS by_hand,
           (SELECT coalesce(json_agg(runs ORDER BY runs.started_at, runs.id), '[]') FROM runs) AS runs
    FROM video
) AS document
