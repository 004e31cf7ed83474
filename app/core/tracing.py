"""Traces of messages: taskiq's OpenTelemetry middleware, where the process has an SDK of OpenTelemetry."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
from taskiq import AsyncBroker, TaskiqMessage, TaskiqMiddleware

_sending: ContextVar[TaskiqMessage | None] = ContextVar("sending", default=None)


def add_tracing_middleware(broker: AsyncBroker) -> None:
    """Add taskiq's OpenTelemetry middleware to a broker where the process has an OpenTelemetry SDK."""
    provider = get_tracer_provider()
    if isinstance(provider, ProxyTracerProvider):
        return
    from taskiq.middlewares.opentelemetry_middleware import OpenTelemetryMiddleware

    if not any(isinstance(middleware, OpenTelemetryMiddleware) for middleware in broker.middlewares):
        broker.add_middlewares(OpenTelemetryMiddleware(tracer_provider=provider))
    broker.add_middlewares(_SentMessageMiddleware())


@contextmanager
def end_failed_send_span() -> Iterator[None]:
    """End the span of a queue message that the block fails to send, which taskiq leaves open."""
    token = _sending.set(None)
    try:
        yield
    except BaseException as error:
        if (message := _sending.get()) is not None:
            _end_send_span(message, error)
        raise
    finally:
        _sending.reset(token)


class _SentMessageMiddleware(TaskiqMiddleware):
    """taskiq middleware that keeps the message being sent, by which its span is found."""

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        _sending.set(message)
        return message


def _end_send_span(message: TaskiqMessage, error: BaseException) -> None:
    from taskiq.middlewares.opentelemetry_middleware import detach_context, retrieve_context

    if (entry := retrieve_context(message, is_publish=True)) is not None:
        _, activation, _ = entry
        activation.__exit__(type(error), error, error.__traceback__)
        detach_context(message, is_publish=True)
