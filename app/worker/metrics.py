"""Metrics of a worker process: taskiq's Prometheus middleware, which serves them at the address of `WORKER_METRICS`."""

import atexit
import os
import shutil
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from taskiq.middlewares import PrometheusMiddleware

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.models.stages import WorkKind

_FREE_BYTES = 1024**2

_middleware: PrometheusMiddleware | None = None


def load_metrics(settings: Settings) -> PrometheusMiddleware | None:
    """Return the middleware of this process, None without `WORKER_METRICS`.

    All workers of a process share it, as prometheus-client registers each metric once. It serves from its first
    `startup` until the process ends. Raises `ConfigurationError` where it cannot.
    """
    global _middleware
    address = settings.worker_metrics_address
    if address is None:
        return None
    if _middleware is None:
        try:
            _check_address(*address)
            folder = _make_folder()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise ConfigurationError(f"Cannot serve WORKER_METRICS at {settings.worker_metrics}: {reason}") from None
        host, port = address
        _middleware = PrometheusMiddleware(folder, port, host)
        _write_zeros(_middleware)
    return _middleware


def _check_address(host: str, port: int) -> None:
    """Raise `OSError` for an address that is taken or not of this machine: the middleware would pass over it."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    socket.create_server(address[:2], family=family).close()


def _make_folder() -> Path:
    """Return a folder for the files of prometheus-client, which is removed when the process ends."""
    folder = TemporaryDirectory(prefix="videomoments-metrics-")
    atexit.register(folder.cleanup)
    if shutil.disk_usage(folder.name).free < _FREE_BYTES:
        raise ConfigurationError(f"WORKER_METRICS needs 1 MB of free space in {Path(folder.name).parent}")
    return Path(folder.name)


def _write_zeros(middleware: PrometheusMiddleware) -> None:
    """Have every series begin at 0, and its page of the mapped files written: where the disk is full later, a new page
    would end the process with SIGBUS."""
    for metric in (
        middleware.received_tasks,
        middleware.success_tasks,
        middleware.found_errors,
        middleware.saved_results,
        middleware.execution_time,
    ):
        for kind in WorkKind:
            metric.labels(kind.task_name)
