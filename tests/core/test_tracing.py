import asyncio
import gc
import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id, get_current_span
from redis.asyncio import Redis
from taskiq.instrumentation import TaskiqInstrumentor
from taskiq.middlewares.opentelemetry_middleware import OpenTelemetryMiddleware

from app.core.config import Settings
from app.models.stages import Stage, WorkKind
from app.services.queue import StageNotifier, make_queue_broker
from app.worker.receiver import StageMessageReceiver

_RUN = "pipeline:talk:1"


class Tracing:
    """An SDK of OpenTelemetry that keeps the spans in this process."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    async def ended(self, name: str) -> ReadableSpan:
        """Wait for a span to end."""
        while True:
            for span in self.exporter.get_finished_spans():
                if span.name == name:
                    return span
            await asyncio.sleep(0.01)


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    tracing = Tracing()
    monkeypatch.setattr("app.core.tracing.get_tracer_provider", lambda: tracing.provider)
    yield tracing
    tracing.provider.shutdown()


async def test_a_stage_continues_the_trace_of_the_request(redis_url: str, tracing: Tracing) -> None:
    settings = Settings(redis_url=redis_url)
    taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def take(identifier: str, stage: Stage) -> bool:
        taken.set_result(get_current_span().get_span_context().span_id)
        return True

    notifier = StageNotifier(settings)
    receiver = StageMessageReceiver(settings, [WorkKind.TRANSCRIPTION], "worker", take)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
        with tracing.tracer.start_as_current_span("request") as request:
            assert await notifier.notify(_RUN, Stage.TRANSCRIPT)
        entries: Any = await redis.xrange(WorkKind.TRANSCRIPTION.stream_name)
    receiver.start_receiving(1)
    async with asyncio.timeout(30):
        current = await taken
        execute = await tracing.ended("execute/videomoments.transcription")
    await receiver.stop_receiving()
    await notifier.aclose()
    spans = {span.name: span for span in tracing.exporter.get_finished_spans()}
    send = spans["send/videomoments.transcription"]
    assert send.parent == request.get_span_context()
    assert execute.parent is not None
    assert execute.context is not None
    assert send.context is not None
    assert (execute.context.trace_id, execute.parent.span_id) == (send.context.trace_id, send.context.span_id)
    assert execute.context.span_id == current
    trace, span = format_trace_id(send.context.trace_id), format_span_id(send.context.span_id)
    ((_, entry),) = entries
    assert json.loads(entry[b"data"])["labels"]["traceparent"].startswith(f"00-{trace}-{span}-")


async def test_a_failed_stage_is_an_error_of_its_span(redis_url: str, tracing: Tracing) -> None:
    settings = Settings(redis_url=redis_url)

    async def take(identifier: str, stage: Stage) -> bool:
        return False

    notifier, receiver = StageNotifier(settings), StageMessageReceiver(settings, [WorkKind.AUDIO], "worker", take)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
    await notifier.notify(_RUN, Stage.AUDIO)
    receiver.start_receiving(1)
    async with asyncio.timeout(30):
        execute = await tracing.ended("execute/videomoments.audio")
    await receiver.stop_receiving()
    await notifier.aclose()
    assert execute.status.status_code is StatusCode.ERROR


async def test_a_message_that_cannot_be_sent_ends_its_span_with_the_error(
    tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            notifier = StageNotifier(Settings(redis_url=f"redis://127.0.0.1:{port}/0"))
            with tracing.tracer.start_as_current_span("request") as request:
                assert not await notifier.notify(_RUN, Stage.DOWNLOAD)
                assert get_current_span() is request
            await notifier.aclose()
    spans = [span for span in tracing.exporter.get_finished_spans() if span.name == "send/videomoments.download"]
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR] * 2
    assert {record.name for record in caplog.records} == {"app.services.queue"}


async def test_sending_that_is_cancelled_leaves_no_traceback(
    tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = StageNotifier(Settings(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        sending = [asyncio.create_task(notifier.notify(_RUN, Stage.DOWNLOAD)) for _ in range(10)]
        await asyncio.sleep(0.1)
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)
        sending.clear()
        del task
        gc.collect()
        await notifier.aclose()
    assert len(tracing.exporter.get_finished_spans()) == 10
    assert not caplog.records


@pytest.mark.usefixtures("tracing")
def test_a_broker_that_is_instrumented_already_traces_each_message_once(redis_url: str) -> None:
    instrumentor = TaskiqInstrumentor()
    instrumentor.instrument()
    try:
        middlewares = [*make_queue_broker(Settings(redis_url=redis_url)).middlewares]
    finally:
        instrumentor.uninstrument()
    assert sum(isinstance(middleware, OpenTelemetryMiddleware) for middleware in middlewares) == 1


def test_nothing_is_traced_without_an_sdk(redis_url: str) -> None:
    assert make_queue_broker(Settings(redis_url=redis_url)).middlewares == []
