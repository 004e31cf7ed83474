"""A site of each test's own, and pairs of workers that the tests of a module share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.faults.site import Site, WorkerPair


@pytest.fixture
async def site(own_database_url: str, redis_url: str, tmp_path: Path) -> Site:
    site = Site(own_database_url, redis_url, tmp_path)
    await site.prepare()
    return site


@pytest.fixture(scope="module")
async def shared_site(
    databases: Databases, template_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    site = Site(databases.create(template_url), redis_url, tmp_path_factory.mktemp("site"))
    await site.prepare()
    return site


@pytest.fixture(scope="module")
async def worker_pair(shared_site: Site) -> AsyncIterator[WorkerPair]:
    worker_pair = WorkerPair(shared_site)
    try:
        yield worker_pair
    finally:
        worker_pair.dismiss()
