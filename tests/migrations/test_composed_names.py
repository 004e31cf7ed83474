"""Names that an earlier version stored with decomposed letters."""

import unicodedata

import pytest

from tests.conftest import Databases, migrate
from tests.migrations.running import execute, fetch

NFC = "Crème brûlée"
NFD = unicodedata.normalize("NFD", NFC)


def write_rows(url: str, *identifiers: str) -> None:
    for number, identifier in enumerate(identifiers, start=1):
        execute(
            url,
            f"""
            INSERT INTO videos (id, identifier, cloud_url, title)
            VALUES ({number}, '{identifier}', 'file:///v', '{NFD}');
            INSERT INTO transcripts (video_id, full_text, word_timestamps, segment_timestamps)
            VALUES ({number}, '{NFD}', '[]', '[{{"text": "{NFD}", "start": 0, "end": 1}}]');
            INSERT INTO moments (identifier, video_id, start_time, end_time, title)
            VALUES ('m{number}', {number}, 0, 1, '{NFD}');
            INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at)
            VALUES ('pipeline:{identifier}:{number}', {number}, 'full', 'completed', now());
            """,
        )


@pytest.mark.parametrize(
    ("stored", "composed"),
    [
        ([NFD, "talk"], [NFC, "talk"]),
        ([NFD, NFC], [f"{NFC}-2", NFC]),
        ([NFC, f"{NFC}-2", NFD], [NFC, f"{NFC}-2", f"{NFC}-3"]),
    ],
)
def test_they_are_composed_and_none_is_lost(databases: Databases, stored: list[str], composed: list[str]) -> None:
    url = databases.create()
    migrate(url, "0005")
    write_rows(url, *stored)
    migrate(url)
    assert [name for (name,) in fetch(url, "SELECT identifier FROM videos ORDER BY id")] == composed
    for table in ("videos", "moments"):
        assert {title for (title,) in fetch(url, f"SELECT title FROM {table}")} == {NFC}
    assert set(fetch(url, "SELECT full_text, segment_timestamps -> 0 ->> 'text' FROM transcripts")) == {(NFC, NFC)}
    runs = [name for (name,) in fetch(url, "SELECT identifier FROM pipeline_history ORDER BY id")]
    assert runs == [f"pipeline:{unicodedata.normalize('NFC', name)}:{n}" for n, name in enumerate(stored, start=1)]


def test_a_letter_behind_an_escape_of_json_is_not_taken_for_a_part_of_it(databases: Databases) -> None:
    url = databases.create()
    migrate(url, "0005")
    text = r"e\u0301 \n\u0303 \t\u0308"
    execute(
        url,
        f"""
        INSERT INTO videos (id, identifier, cloud_url) VALUES (1, 'talk', 'file:///v');
        INSERT INTO transcripts (video_id, full_text, word_timestamps, segment_timestamps)
        VALUES (1, '', '[]', '[{{"text": "{text}", "start": 0, "end": 1}}]');
        """,
    )
    migrate(url)
    ((stored,),) = fetch(url, "SELECT segment_timestamps -> 0 ->> 'text' FROM transcripts")
    assert stored == "\u00e9 \n\u0303 \t\u0308"


def test_of_two_runs_that_become_one_name_the_older_gets_it(databases: Databases) -> None:
    url = databases.create()
    migrate(url, "0005")
    first, second = "run:a\u0302\u0323", "run:a\u0323\u0302"
    execute(
        url,
        f"""
        INSERT INTO videos (id, identifier, cloud_url) VALUES (1, 'talk', 'file:///v');
        INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at)
        VALUES ('{first}', 1, 'full', 'completed', now()), ('{second}', 1, 'full', 'completed', now());
        """,
    )
    migrate(url)
    runs = [name for (name,) in fetch(url, "SELECT identifier FROM pipeline_history ORDER BY id")]
    assert runs == ["run:\u1ead", second]
