"""The migrations: the schema they make, the way back, several at once, and what they do to rows that are there."""

import re
from pathlib import Path
from shutil import copytree

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.core.config import Settings
from app.core.errors import DatabaseUnavailable
from app.database import open_async_connection
from app.database.catalog import create_schema
from app.database.migrations import (
    hold_migration_lock,
    list_migration_revisions,
    read_alembic_revision,
    read_database_revision,
)
from tests.conftest import Databases, migrate
from tests.database.pools import within
from tests.migrations.running import (
    INI,
    ROOT,
    VERSIONS,
    catalog_of,
    execute,
    fetch,
    other_folder,
    run_alembic,
    start_alembic,
    write_sql,
)

_ROWS = """
    INSERT INTO videos (id, identifier, cloud_url) VALUES (1, 'talk', 'file:///talk.mp4');
    INSERT INTO transcripts (id, video_id, full_text, word_timestamps, segment_timestamps)
    VALUES (1, 1, 'Good morning', '[]', '[{"text": "Good morning", "start": 0.5, "end": 1.5}]');
    INSERT INTO prompts (id, user_prompt, system_prompt, prompt_hash) VALUES (1, 'u', 's', 'h');
    INSERT INTO generation_configs (id, prompt_id, transcript_id, model, operation_type, config_hash)
    VALUES (1, 1, 1, 'm', 'generation', 'h');
    INSERT INTO moments (id, identifier, video_id, start_time, end_time, title, generation_config_id)
    VALUES (1, 'a', 1, 0, 1, 't', 1);
    INSERT INTO clips (id, moment_id, video_id, cloud_url, start_time, end_time) VALUES (1, 1, 1, 'file:///c', 0, 1);
    INSERT INTO thumbnails (id, clip_id, cloud_url) VALUES (1, 1, 'file:///t');
    INSERT INTO pipeline_history (id, identifier, video_id, pipeline_type, status, started_at)
    VALUES (1, 'p', 1, 'full', 'running', now());
"""
_HEAD = list_migration_revisions()[0]


@pytest.fixture
def url(databases: Databases) -> str:
    """An empty database."""
    return databases.create()


def test_the_migrations_make_the_schema_that_can_be_read(url: str, template_url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        create_schema(conn)
    assert catalog_of(template_url) == catalog_of(url)


def test_the_way_down_leaves_nothing_and_the_way_up_is_open_again(url: str, template_url: str) -> None:
    empty = catalog_of(url)
    migrate(url)
    run_alembic(url, "downgrade", "base")
    assert catalog_of(url) == empty
    assert fetch(url, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'") == [
        ("alembic_version",)
    ]
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_%' AND nspname <> 'information_schema'"
    assert fetch(url, schemas) == [("public",)]
    migrate(url)
    assert catalog_of(url) == catalog_of(template_url)


@pytest.mark.parametrize("revision", sorted(list_migration_revisions()))
def test_each_migration_goes_up_down_and_up_over_rows(revision: str, url: str) -> None:
    migrate(url, revision)
    before = catalog_of(url)
    execute(url, _ROWS)
    run_alembic(url, "downgrade", "-1")
    assert catalog_of(url) != before
    migrate(url, revision)
    assert catalog_of(url) == before


def test_search_is_filled_from_transcripts_that_are_there(url: str) -> None:
    migrate(url, "0001")
    execute(url, _ROWS)
    migrate(url, "0002")
    assert fetch(url, "SELECT transcript_id, position, start_time, end_time, text FROM search.segments") == [
        (1, 1, 0.5, 1.5, "Good morning")
    ]
    assert fetch(url, "SELECT transcript_id, document @@ to_tsquery('english', 'morning') FROM search.transcripts") == [
        (1, True)
    ]


def test_what_is_there_before_passages_waits_to_be_indexed_and_going_back_makes_the_segments_again(url: str) -> None:
    migrate(url, "0015")
    execute(url, _ROWS)
    segments = fetch(url, "SELECT * FROM search.segments")
    documents = fetch(url, "SELECT transcript_id, document, word_timestamps FROM search.transcripts")
    migrate(url)
    assert fetch(url, "SELECT transcript_id FROM search.transcripts WHERE index_version = 0") == [(1,)]
    assert fetch(url, "SELECT count(video_id), count(moment_id) FROM search.titles WHERE index_version = 0") == [(1, 1)]
    run_alembic(url, "downgrade", "0015")
    assert fetch(url, "SELECT * FROM search.segments") == segments
    assert fetch(url, "SELECT transcript_id, document, word_timestamps FROM search.transcripts") == documents


def test_going_back_before_search_keeps_the_transcripts(url: str) -> None:
    migrate(url)
    execute(url, _ROWS)
    run_alembic(url, "downgrade", "0001")
    assert fetch(url, "SELECT full_text FROM transcripts") == [("Good morning",)]
    execute(url, "UPDATE transcripts SET full_text = 'Good evening'")


async def test_five_upgrades_at_once_take_turns_and_all_end_well(url: str, template_url: str) -> None:
    mine = "datname = current_database() AND application_name = 'videomoments-migrations'"
    waiting = f"SELECT FROM pg_stat_activity WHERE {mine}"
    with hold_migration_lock(Settings(database_url=url)):
        upgrades = [start_alembic(url, "upgrade", "head") for _ in range(5)]
        assert await within(60, lambda: len(fetch(url, waiting)) == 6)
        assert fetch(url, "SELECT to_regclass('videos')") == [(None,)]
    said = [upgrade.communicate(timeout=300)[1] for upgrade in upgrades]
    assert [upgrade.returncode for upgrade in upgrades] == [0] * 5, said
    assert sum("Running upgrade" in text for text in said) == 1
    assert catalog_of(url) == catalog_of(template_url)


def test_the_printed_sql_makes_the_same_schema(url: str, template_url: str) -> None:
    execute(url, write_sql("head"))
    assert catalog_of(url) == catalog_of(template_url)
    assert fetch(url, "SELECT version_num FROM alembic_version") == [(_HEAD,)]


def test_the_printed_sql_continues_where_a_database_is(url: str, template_url: str) -> None:
    migrate(url, "0001")
    execute(url, write_sql("0001:head"))
    assert catalog_of(url) == catalog_of(template_url)


def test_there_is_one_line_of_numbered_migrations() -> None:
    scripts = ScriptDirectory.from_config(Config(INI))
    assert scripts.get_heads() == [_HEAD]
    numbers = [f"{number:04}" for number in range(1, len(list_migration_revisions()) + 1)]
    assert sorted(list_migration_revisions()) == numbers
    names = sorted(path.name for path in VERSIONS.glob("*.py"))
    assert [name[:4] for name in names] == numbers
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", name) for name in names)


def test_the_template_makes_a_migration_that_runs(url: str, tmp_path: Path) -> None:
    copytree(ROOT / "db", tmp_path / "db")
    (tmp_path / "alembic.ini").write_text(INI.read_text())
    config = Config(tmp_path / "alembic.ini")
    command.revision(config, message="add a column", rev_id="9000")
    assert (tmp_path / "db/migrations/versions/9000_add_a_column.py").exists()
    run_alembic(url, "upgrade", "head", config=config)
    assert fetch(url, "SELECT version_num FROM alembic_version") == [("9000",)]
    run_alembic(url, "downgrade", "-1", config=config)


_MIGRATION = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "9000", "{head}", None, None


def upgrade() -> None:
    op.execute("CREATE TABLE half_made ()")
    op.execute("ALTER TABLE videos ADD note text")
"""


def test_a_migration_does_not_queue_for_a_lock(own_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "9000_note.py").write_text(_MIGRATION.format(head=_HEAD))
    config = other_folder(tmp_path)
    with psycopg.connect(own_database_url) as reader:
        reader.execute("SELECT FROM videos")
        with pytest.raises(DatabaseUnavailable, match="canceling statement due to lock timeout"):
            run_alembic(own_database_url, "upgrade", "head", config=config, DATABASE_LOCK_TIMEOUT="0.1")
        assert fetch(own_database_url, "SELECT to_regclass('half_made')") == [(None,)]
    run_alembic(own_database_url, "upgrade", "head", config=config)
    assert fetch(own_database_url, "SELECT version_num FROM alembic_version") == [("9000",)]


def test_a_migration_may_run_longer_than_a_request(url: str, tmp_path: Path) -> None:
    slow = _MIGRATION.format(head=_HEAD).replace("CREATE TABLE half_made ()", "SELECT pg_sleep(0.3)")
    (tmp_path / "9000_slow.py").write_text(slow)
    run_alembic(url + "?options=-c%20statement_timeout%3D100", "upgrade", "head", config=other_folder(tmp_path))


def test_an_index_can_be_built_without_blocking_writers(url: str, tmp_path: Path) -> None:
    body = """
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY idx_videos_title ON videos (title)")
"""
    (tmp_path / "9000_index.py").write_text(_MIGRATION.format(head=_HEAD).partition("    op.execute")[0] + body)
    run_alembic(url, "upgrade", "head", config=other_folder(tmp_path))
    assert "index idx_videos_title on videos" in catalog_of(url)


async def test_a_database_knows_its_revision(url: str) -> None:
    settings = Settings(database_url=url)
    async with open_async_connection(settings) as conn:
        assert await read_alembic_revision(conn) is None
        assert read_database_revision(settings) is None
        migrate(url, "0001")
        assert await read_alembic_revision(conn) == read_database_revision(settings) == "0001"
        run_alembic(url, "downgrade", "base")
        assert await read_alembic_revision(conn) is None
        assert read_database_revision(settings) is None
