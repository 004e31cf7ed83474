"""A server on loopback that speaks chat completions, transcriptions, embeddings and `/transcribe`, and misbehaves."""

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.serving import free_port


@dataclass(frozen=True, slots=True)
class Received:
    """A request. `body` is its JSON, or the fields of its form; `file` is what was uploaded."""

    path: str
    headers: Mapping[str, str]
    body: Any
    file: bytes = b""

    @property
    def prompt(self) -> str:
        """The text of the first message of a chat."""
        content = self.body["messages"][0]["content"]
        return content if isinstance(content, str) else content[-1]["text"]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `text` is what a chat model says; `body` stands for the whole body where it is given.

    `never` keeps the caller waiting until it goes away; `cut` closes the connection in the middle of the body.
    """

    text: str = "[]"
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str | None = "test-model"
    finish_reason: str = "stop"
    tokens: tuple[int, int] = (100, 20)
    never: bool = False
    cut: bool = False


Answer = Reply | str | Callable[[Received], "Reply | str"]


class ModelServer:
    """`with ModelServer() as server: …`; what it is asked is in `requests`.

    `script` sets what the next requests get, one each; after that everyone gets what `answer` or `transcript` has set.
    `refuses_schema` answers 400 to whoever asks a chat for a JSON schema, before anything else. `waiting` is set when
    somebody is kept waiting by a reply that never comes, and `dropped` when that one has gone away.
    """

    def __init__(self) -> None:
        self.reset()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        paths = ("/v1/chat/completions", "/v1/audio/transcriptions", "/transcribe", "/{path:path}")
        app = Starlette(routes=[Route(path, self._serve, methods=["POST"]) for path in paths])
        config = uvicorn.Config(app, port=port, log_config=None, access_log=False, ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def reset(self) -> None:
        """Forget what was asked, and what was to be answered."""
        self.requests: list[Received] = []
        self.refuses_schema = False
        self.waiting = threading.Event()
        self.dropped = threading.Event()
        self._script: deque[Answer] = deque()
        self._answer: Answer = "[]"
        self._transcript: Any = {"text": "", "words": [], "segments": []}

    def answer(self, answer: Answer) -> None:
        """Set what every chat is answered that the script leaves."""
        self._answer = answer

    def transcript(self, body: Any) -> None:
        """Set the body that every audio is answered that the script leaves, or a function of the request."""
        self._transcript = body

    def embed(self, embed: Callable[[str], Sequence[float]]) -> None:
        """Set the vector of each text that embeddings are asked for."""

        def answer(received: Received) -> Reply:
            texts = received.body["input"]
            data = [
                {"object": "embedding", "index": number, "embedding": embed(text)} for number, text in enumerate(texts)
            ]
            usage = {"prompt_tokens": 3 * len(texts), "total_tokens": 3 * len(texts)}
            return Reply(body={"object": "list", "data": data[::-1], "model": "test-model", "usage": usage})

        self._transcript = answer

    def script(self, answers: Iterable[Answer]) -> None:
        self._script.extend(answers)

    def __enter__(self) -> "ModelServer":
        logging.getLogger("uvicorn.error").disabled = True  # an answer that is cut is a fault to it
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            self._thread.join(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)

    async def _serve(self, request: Request) -> Response:
        received = await _receive(request)
        self.requests.append(received)
        is_chat = received.path.endswith("/chat/completions")
        if is_chat and self.refuses_schema and "response_format" in received.body:
            return JSONResponse({"error": {"message": "response_format is not supported"}}, 400)
        reply = self._choose(received, is_chat)
        if reply.never:
            await self._wait_until_dropped(request)
        body = reply.body if reply.body is not None else _completion(reply)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if reply.cut:
            return _CutResponse(content)
        return Response(content, reply.status, {"Content-Type": "application/json", **reply.headers})

    def _choose(self, received: Received, is_chat: bool) -> Reply:
        answer: Any = self._script.popleft() if self._script else self._answer if is_chat else self._transcript
        if callable(answer):
            answer = answer(received)
        if isinstance(answer, str):
            return Reply(answer)
        return answer if isinstance(answer, Reply) else Reply(body=answer)

    async def _wait_until_dropped(self, request: Request) -> None:
        self.waiting.set()
        while not await request.is_disconnected():
            if self._server.should_exit:
                return
            await asyncio.sleep(0.01)
        self.dropped.set()


async def _receive(request: Request) -> Received:
    headers = dict(request.headers)
    if not request.headers["Content-Type"].startswith("multipart/"):
        return Received(request.url.path, headers, await request.json())
    async with request.form() as form:
        file = form["file"]
        assert not isinstance(file, str)
        fields = {name: form.getlist(name) for name in form if name != "file"}
        return Received(request.url.path, headers, fields, await file.read())


def _completion(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text}
    prompt_tokens, completion_tokens = reply.tokens
    named = {"model": reply.model} if reply.model is not None else {}
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
        **named,
    }


class _CutResponse(Response):
    """Promises more than it sends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % (len(self.body) + 100))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": False})
