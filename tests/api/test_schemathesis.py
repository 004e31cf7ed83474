"""Every documented route, called with generated input, on a real server: no 5xx, and every answer as documented."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.api_keys import make_api_key
from app.core.config import Settings
from app.database import open_async_connection
from app.storage.keys import audio_folder_key, clip_folder_key, video_folder_key
from tests.factories import make_clip, make_generation_config, make_moment, make_run, make_transcript, make_video
from tests.media.movies import make_movie
from tests.serving import ServerProcess, serving

# What the documentation gives as examples is there, so that they lead somewhere.
VIDEO, MOMENT = "motivation", "7621a017eec7482f"

SECRET, KEY = make_api_key()

EXISTING = f"""
[parameters]
"path.video_id" = "{VIDEO}"
"path.moment_id" = "{MOMENT}"

"""
CONFIG = f"""
headers = {{ "X-API-Key" = "{SECRET}" }}
seed = 20261122
suppress-health-check = ["all"]
continue-on-failure = true
request-timeout = 20.0

[generation]
max-examples = 8
deterministic = true
with-security-parameters = false
no-shrink = true
database = "none"

# A video must be one, a moment must not lie over another: no schema says that.
[checks.positive_data_acceptance]
enabled = false

# To the routes below /models `seed` is a key like another, for which there never is a model.
[[operations]]
include-path = "/api/admin/models/seed"
checks.allow_header_conformance.enabled = false

# A model that nobody has registered is 503.
[[operations]]
include-path-regex = "/(generate_moments|start|generate-moments|refine)$"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]

# No worker ends the runs that are started, and so nothing ends what is told of them.
[[operations]]
include-path = "/api/pipeline/{{video_id}}/events"
enabled = false

[phases.stateful]
enabled = false
"""


async def _fill(database_url: str, media: Path) -> None:
    movie = make_movie(media / video_folder_key(VIDEO) / f"{VIDEO}.mp4")
    cut = make_movie(media / clip_folder_key(VIDEO) / f"{MOMENT}.mp4")
    make_movie(media / audio_folder_key(VIDEO) / f"{VIDEO}.wav", video_codec=None, audio_codec="pcm_s16le")
    async with open_async_connection(Settings(database_url=database_url)) as conn:
        video = await make_video(conn, identifier=VIDEO, cloud_url=movie.as_uri(), duration_seconds=300.0)
        await make_transcript(conn, video_id=video.id)
        config = await make_generation_config(conn)
        moment = await make_moment(conn, identifier=MOMENT, video_id=video.id, generation_config_id=config.id)
        await make_clip(conn, moment, cloud_url=cut.as_uri())
        await make_run(conn, video_id=video.id, status="completed")


@pytest.fixture
def server(tmp_path: Path, own_database_url: str, redis_url: str) -> Iterator[ServerProcess]:
    media = tmp_path / "media"
    asyncio.run(_fill(own_database_url, media))
    with serving(
        tmp_path,
        database_url=own_database_url,
        redis_url=redis_url,
        storage_url=media.as_uri(),
        api_keys=KEY,
        log_level="error",
    ) as server:
        yield server


def call_everything(server: ServerProcess, folder: Path, *options: str, more: str = "") -> None:
    """Run schemathesis to its end; what it finds fails the test."""
    (folder / "schemathesis.toml").write_text(CONFIG + more)
    result = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{server.url}/openapi.json", *options],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    if result.returncode:
        pytest.fail(result.stdout + result.stderr + server.output, pytrace=False)


def test_generated_input_gets_documented_answers(server: ServerProcess, tmp_path: Path) -> None:
    call_everything(server, tmp_path)


def test_so_does_generated_input_for_what_is_there(server: ServerProcess, tmp_path: Path) -> None:
    only = ("--exclude-method", "DELETE", "--include-path-regex", "video_id", "--phases", "coverage,fuzzing")
    call_everything(server, tmp_path, *only, more=EXISTING)
