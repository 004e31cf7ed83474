"""Two workers in processes of their own, for tests that kill one now and then."""

from tests.faults.site import Site, WorkerProcess


class Crew:
    """`ready` waits until both are at work."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._workers: dict[int, WorkerProcess] = {}
        self._fill()

    async def ready(self) -> Site:
        self._fill()
        for worker in self._workers.values():
            await worker.ready()
        return self.site

    def member(self, pid: int) -> WorkerProcess:
        return self._workers[pid]

    async def kill(self, pid: int) -> None:
        """Kill one; another one comes in its place, but not at once."""
        self._workers[pid].kill()
        await self.site.miss(pid)
        self._fill()

    def dismiss(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    def _fill(self) -> None:
        self._workers = {pid: worker for pid, worker in self._workers.items() if worker.process.poll() is None}
        while len(self._workers) < 2:
            worker = self.site.spawn(pipeline_concurrency=10)
            self._workers[worker.pid] = worker
