"""Search passages by meaning, where pgvector is available.

Revision ID: 0017
Revises: 0016
Create Date: 2026-11-29
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE search.state ADD COLUMN embedding_model text, ADD COLUMN next_embedding_model text")
    op.execute(
        """
        CREATE TABLE search.unembedded (
            passage_id    bigint    CONSTRAINT unembedded_pkey PRIMARY KEY
                                    CONSTRAINT unembedded_passage_id_fkey
                                    REFERENCES search.passages ON DELETE CASCADE,
            claimed_until timestamp NOT NULL DEFAULT '-infinity'
        )
        """
    )
    op.execute("CREATE INDEX idx_unembedded_claimed_until ON search.unembedded (claimed_until, passage_id DESC)")
    op.execute(
        """
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
        $$
        """
    )
    op.execute(
        """
        DO $$
        DECLARE
            reason text := search.enable_vectors();
        BEGIN
            IF reason IS NOT NULL THEN
                RAISE NOTICE USING MESSAGE = 'Nothing is found by meaning: ' || reason;
            END IF;
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS search.vectors")
    op.execute("DROP FUNCTION search.enable_vectors()")
    op.execute("DROP TABLE search.unembedded")
    op.execute("ALTER TABLE search.state DROP COLUMN embedding_model, DROP COLUMN next_embedding_model")
