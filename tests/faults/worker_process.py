"""A worker that tests may kill: `python -m tests.faults.worker_process FOLDER`, settings in the environment."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from app.core.config import load_settings
from app.core.logging import configure_logging
from app.resources import make_resources, open_resources
from app.worker.worker import Worker
from tests.faults.stages import STEADY, make_stages
from tests.pipeline.contexts import NoModels


async def _main(folder: Path) -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    settings = load_settings()
    configure_logging(settings)
    async with open_resources(make_resources(settings)) as resources:
        worker = Worker(
            settings,
            resources.database,
            resources.redis,
            resources.storage,
            NoModels(),
            stages=make_stages(folder),
            timings=STEADY,
        )
        await worker.start()
        (folder / f"{os.getpid()}.ready").touch()
        await ending.wait()
        await worker.stop()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
