"""Cards that failed downloads of an earlier version have left."""

from app.core.config import Settings
from app.database import open_async_connection
from app.repositories.videos import VideoRepository
from tests.conftest import Databases, migrate
from tests.migrations.running import execute, fetch

_ROWS = """
    INSERT INTO videos (id, identifier, cloud_url, source_url, file_size_kb) VALUES
        (1, 'dead', 'file:///1', 'https://host/1.mp4', NULL),
        (2, 'downloaded', 'file:///2', 'https://host/2.mp4', 5),
        (3, 'imported', 'file:///3', 'https://host/3.mp4', NULL),
        (4, 'spoken', 'file:///4', 'https://host/4.mp4', NULL),
        (5, 'uploaded', 'file:///5', NULL, 5);
    INSERT INTO transcripts (video_id, full_text, word_timestamps, segment_timestamps) VALUES (4, '', '[]', '[]');
    INSERT INTO pipeline_history (id, identifier, video_id, pipeline_type, status, started_at)
        SELECT id, 'run-' || id, id, 'full', 'failed', now() FROM videos WHERE identifier <> 'imported';
    INSERT INTO pipeline.work (run_id, request)
        SELECT id, jsonb_build_object('video_url', 'https://host/' || id || '.mp4') FROM pipeline_history;
"""


def test_they_are_in_no_list_any_more_and_their_runs_stay(databases: Databases) -> None:
    url = databases.create()
    migrate(url, "0008")
    execute(url, _ROWS)
    migrate(url)
    assert fetch(url, "SELECT video_id FROM pipeline.pending_videos") == [(1,)]
    assert fetch(url, "SELECT count(*) FROM pipeline_history") == [(4,)]


async def test_a_video_that_a_worker_of_the_earlier_version_downloads_is_listed(databases: Databases) -> None:
    url = databases.create()
    migrate(url, "0008")
    execute(url, _ROWS)
    migrate(url)
    execute(url, "UPDATE videos SET file_size_kb = 5 WHERE identifier = 'dead'")
    async with open_async_connection(Settings(database_url=url)) as conn:
        _, cards = await VideoRepository(conn).list_cards(10)
    assert [card.identifier for card in cards] == ["dead", "downloaded", "imported", "spoken", "uploaded"]
