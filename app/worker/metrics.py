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


def load_metrics_middleware(settings: Settings) -> PrometheusMiddleware | None:
    """Return the Prometheus middleware that all workers of this process share, None without `WORKER_METRICS`.

    It serves from its first `startup` until the process ends. Raises `ConfigurationError` where it cannot.
    """
    global _middleware
    address = settings.worker_metrics_address
    if address is None:
        return None
    if _middleware is None:
        try:
            _check_address_is_free(*address)
            folder = _make_temporary_metrics_folder()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise ConfigurationError(f"Cannot serve WORKER_METRICS at {settings.worker_metrics}: {reason}") from None
        host, port = address
        _middleware = PrometheusMiddleware(folder, port, host)
        _initialize_metric_series(_middleware)
    return _middleware


def _check_address_is_free(host: str, port: int) -> None:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    socket.create_server(address[:2], family=family).close()  # the middleware only logs an address in use


def _make_temporary_metrics_folder() -> Path:
    folder = TemporaryDirectory(prefix="videomoments-metrics-")
    atexit.register(folder.cleanup)
    if shutil.disk_usage(folder.name).free < _FREE_BYTES:
        raise ConfigurationError(f"WORKER_METRICS needs 1 MB of free space in {Path(folder.name).parent}")
    return Path(folder.name)


def _initialize_metric_series(middleware: PrometheusMiddleware) -> None:
    """Write a 0 for every series now: on a full disk, a new page of the mapped files would raise SIGBUS."""
    for metric in (
        middleware.received_tasks,
        middleware.success_tasks,
        middleware.found_errors,
        middleware.saved_results,
        middleware.execution_time,
    ):
        for kind in WorkKind:
            metric.labels(kind.task_name)
