"""Normalize names to NFC, so that names that look equal are one video on every system.

A trigger normalizes the identifiers of videos from now on. Existing names and texts are normalized here once; of two
videos that get the same name, the younger gets a number.

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-27
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        DO $$
        DECLARE
            video record;
            composed text;
            wanted text;
            number integer;
        BEGIN
            FOR video IN SELECT id, identifier FROM videos WHERE identifier IS NOT NFC NORMALIZED ORDER BY id LOOP
                composed := left(normalize(video.identifier, NFC), 255);
                wanted := composed;
                number := 2;
                WHILE EXISTS (SELECT FROM videos WHERE identifier = wanted) LOOP
                    wanted := left(composed, 244) || '-' || number;
                    number := number + 1;
                END LOOP;
                UPDATE videos SET identifier = wanted WHERE id = video.id;
            END LOOP;
        END
        $$
        """
    )
    op.execute(
        """
        UPDATE pipeline_history SET identifier = composed
        FROM (
            SELECT min(id) AS first_id, normalize(identifier, NFC) AS composed
            FROM pipeline_history WHERE identifier IS NOT NFC NORMALIZED GROUP BY composed
        ) AS runs
        WHERE id = first_id AND length(composed) <= 100
          AND NOT EXISTS (SELECT FROM pipeline_history AS other WHERE other.identifier = composed)
        """
    )
    op.execute("UPDATE videos SET title = left(normalize(title, NFC), 500) WHERE title IS NOT NFC NORMALIZED")
    op.execute("UPDATE moments SET title = left(normalize(title, NFC), 500) WHERE title IS NOT NFC NORMALIZED")
    _compose_transcripts()
    op.execute(
        """
        CREATE FUNCTION videos_compose_identifier() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            NEW.identifier := normalize(NEW.identifier, NFC);
            RETURN NEW;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER videos_compose_identifier BEFORE INSERT OR UPDATE OF identifier ON videos
        FOR EACH ROW EXECUTE FUNCTION videos_compose_identifier()
        """
    )


def _compose_transcripts() -> None:
    """The text of JSON has escapes like `\\n`, whose letter must not be composed with a mark behind it: a control
    character, which JSON has only as an escape, keeps them apart."""
    op.execute(
        r"""
        CREATE FUNCTION pipeline.compose(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
            SELECT replace(
                normalize(regexp_replace(value::text, '(\\[bfnrt])([\u0300-\u036f])', E'\\1\x01\\2', 'g'), NFC),
                E'\x01', ''
            )::jsonb
        $$
        """
    )
    op.execute(
        """
        UPDATE transcripts
        SET full_text = normalize(full_text, NFC), word_timestamps = pipeline.compose(word_timestamps),
            segment_timestamps = pipeline.compose(segment_timestamps)
        WHERE full_text IS NOT NFC NORMALIZED OR word_timestamps::text IS NOT NFC NORMALIZED
           OR segment_timestamps::text IS NOT NFC NORMALIZED
        """
    )
    op.execute("DROP FUNCTION pipeline.compose")


def downgrade() -> None:
    op.execute("DROP TRIGGER videos_compose_identifier ON videos")
    op.execute("DROP FUNCTION videos_compose_identifier()")
