"""Store derived data for searching and serving transcripts in the schema `search`.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-22
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA search")
    op.execute(
        """
        CREATE TABLE search.transcripts (
            transcript_id   integer  CONSTRAINT transcripts_pkey PRIMARY KEY
                                     CONSTRAINT transcripts_transcript_id_fkey
                                     REFERENCES public.transcripts ON DELETE CASCADE,
            document        tsvector NOT NULL,
            word_timestamps text     NOT NULL
        )
        """
    )
    op.execute("ALTER TABLE search.transcripts ALTER COLUMN word_timestamps SET STORAGE EXTERNAL")
    op.execute(
        """
        CREATE TABLE search.segments (
            transcript_id integer          NOT NULL CONSTRAINT segments_transcript_id_fkey
                                           REFERENCES public.transcripts ON DELETE CASCADE,
            position      integer          NOT NULL,
            start_time    double precision NOT NULL,
            end_time      double precision NOT NULL,
            text          text             NOT NULL,
            document      tsvector         NOT NULL,
            CONSTRAINT segments_pkey PRIMARY KEY (transcript_id, position)
        )
        """
    )
    op.execute("CREATE INDEX idx_segments_document ON search.segments USING gin (document)")
    op.execute(
        """
        CREATE FUNCTION search.add_transcript(added public.transcripts) RETURNS void
        LANGUAGE sql AS $$
            INSERT INTO search.transcripts (transcript_id, document, word_timestamps)
            VALUES (added.id, to_tsvector('english', added.full_text), added.word_timestamps::text);

            INSERT INTO search.segments (transcript_id, position, start_time, end_time, text, document)
            SELECT added.id, position, (segment -> 'start')::float8, (segment -> 'end')::float8, segment ->> 'text',
                   to_tsvector('english', segment ->> 'text')
            FROM jsonb_path_query(added.segment_timestamps, 'lax $[*]') WITH ORDINALITY AS segments (segment, position)
            WHERE jsonb_typeof(segment -> 'text') = 'string'
              AND jsonb_typeof(segment -> 'start') = 'number' AND jsonb_path_match(segment, '$.start.abs() < 1e300')
              AND jsonb_typeof(segment -> 'end') = 'number' AND jsonb_path_match(segment, '$.end.abs() < 1e300');
        $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION search.follow_transcript() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' THEN
                DELETE FROM search.transcripts WHERE transcript_id = OLD.id;
                DELETE FROM search.segments WHERE transcript_id = OLD.id;
            END IF;
            PERFORM search.add_transcript(NEW);
            RETURN NULL;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER transcripts_follow
        AFTER INSERT OR UPDATE OF full_text, word_timestamps, segment_timestamps ON transcripts
        FOR EACH ROW EXECUTE FUNCTION search.follow_transcript()
        """
    )
    op.execute(
        """
        CREATE FUNCTION search.rebuild() RETURNS bigint
        LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM search.transcripts;
            DELETE FROM search.segments;
            PERFORM search.add_transcript(transcripts) FROM public.transcripts;
            RETURN (SELECT count(*) FROM search.transcripts);
        END
        $$
        """
    )
    op.execute("SELECT search.rebuild()")


def downgrade() -> None:
    op.execute("DROP TRIGGER transcripts_follow ON transcripts")
    op.execute("DROP SCHEMA search CASCADE")
