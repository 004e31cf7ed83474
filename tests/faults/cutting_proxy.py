"""A TCP proxy that cuts a connection when the server has done what was asked, so that the client never learns it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_CHUNK_BYTES = 65_536


class CuttingProxy:
    """`url` leads to the server. It cuts once: a connection on which all of `words` were sent, one after the other, as
    soon as the server has answered the last of them; what it answered is not passed on."""

    def __init__(self, server_url: str, words: Sequence[bytes]) -> None:
        self._server = urlsplit(server_url)
        self._words = words
        self._port = 0
        self.has_cut = False

    @property
    def url(self) -> str:
        login = self._server.netloc.rpartition("@")[0]
        return self._server._replace(netloc=f"{login}@127.0.0.1:{self._port}").geturl()

    @asynccontextmanager
    async def run(self) -> AsyncIterator["CuttingProxy"]:
        server = await asyncio.start_server(self._connect, "127.0.0.1")
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _connect(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(self._server.hostname, self._server.port)
        left = list(self._words)
        sending = asyncio.create_task(self._send(client, to_server, left))
        answering = asyncio.create_task(self._answer(server, to_client, left))
        await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
        for task in (sending, answering):
            task.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)
        for writer in (to_client, to_server):
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _send(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter, left: list[bytes]) -> None:
        while sent := await client.read(_CHUNK_BYTES):
            if left and left[0] in sent:
                del left[0]
            to_server.write(sent)
            await to_server.drain()

    async def _answer(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter, left: list[bytes]) -> None:
        while answer := await server.read(_CHUNK_BYTES):
            if not left and not self.has_cut:
                self.has_cut = True
                return
            to_client.write(answer)
            await to_client.drain()
