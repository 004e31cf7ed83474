"""Skip rows of a restored data-only dump that the triggers have created already.

Revision ID: 0010
Revises: 0009
Create Date: 2026-11-27
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE FUNCTION search.skip_existing_transcript() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM search.transcripts WHERE transcript_id = NEW.transcript_id) THEN
                RETURN NULL;
            END IF;
            RETURN NEW;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION search.skip_existing_segment() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (
                SELECT FROM search.segments WHERE transcript_id = NEW.transcript_id AND position = NEW.position
            ) THEN
                RETURN NULL;
            END IF;
            RETURN NEW;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER transcripts_skip_existing BEFORE INSERT ON search.transcripts
        FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION search.skip_existing_transcript()
        """
    )
    op.execute(
        """
        CREATE TRIGGER segments_skip_existing BEFORE INSERT ON search.segments
        FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION search.skip_existing_segment()
        """
    )
    op.execute(
        """
        CREATE FUNCTION pipeline.skip_other_version() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM public.alembic_version) THEN
                RETURN NULL;
            END IF;
            RETURN NEW;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER alembic_version_skip_other BEFORE INSERT ON alembic_version
        FOR EACH ROW EXECUTE FUNCTION pipeline.skip_other_version()
        """
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER alembic_version_skip_other ON alembic_version")
    op.execute("DROP FUNCTION pipeline.skip_other_version()")
    op.execute("DROP TRIGGER segments_skip_existing ON search.segments")
    op.execute("DROP TRIGGER transcripts_skip_existing ON search.transcripts")
    op.execute("DROP FUNCTION search.skip_existing_segment()")
    op.execute("DROP FUNCTION search.skip_existing_transcript()")
