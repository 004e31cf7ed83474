"""A server with a worker in it, as `make run` starts it, on a database and a Valkey of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import EmbeddedValkey
from tests.conftest import Databases
from tests.end_to_end.frontend import Finished, Frontend, fly_rocket
from tests.media.talks import Talk
from tests.serving import ServerProcess, serving
from tests.sites import Site


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A web site that the server may download from although it is on loopback."""
    with Site() as site:
        yield site


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, template_url: str, site: Site
) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("end-to-end")
    with (
        EmbeddedValkey(folder / "valkey") as valkey,
        serving(
            folder,
            database_url=databases.create(template_url),
            redis_url=valkey.url,
            run_pipeline_worker=True,
            allowed_hosts=site.host,
            data_dir=folder / "data",
        ) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def frontend(server: ServerProcess) -> Iterator[Frontend]:
    with Frontend(server.url) as frontend:
        yield frontend


@pytest.fixture(scope="session")
def finished(frontend: Frontend, talk: Talk) -> Finished:
    """A run that the rocket button started, and that has ended."""
    return fly_rocket(frontend, talk, min_length=15, max_length=35)
