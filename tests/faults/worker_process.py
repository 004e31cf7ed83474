"""A worker that tests may kill: `python -m tests.faults.worker_process FOLDER`, settings in the environment."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from app.core.config import load_settings
from app.core.logging import configure_logging
from app.core.redis import close_redis, get_redis, init_redis
from app.database import Database, close_db, get_connection, init_db
from app.storage import open_storage
from app.worker.worker import Worker
from tests.faults.stages import STEADY, make_stages
from tests.pipeline.contexts import NoModels


async def _main(folder: Path) -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    settings = load_settings()
    configure_logging(settings)
    init_redis(settings)
    await init_db(settings)
    storage = open_storage(settings)
    database = Database(get_connection)
    worker = Worker(settings, database, get_redis(), storage, NoModels(), stages=make_stages(folder), timings=STEADY)
    await worker.start()
    (folder / f"{os.getpid()}.ready").touch()
    await ending.wait()
    await worker.stop()
    await close_db()
    await close_redis()
    await storage.aclose()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
