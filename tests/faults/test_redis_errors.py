"""A Redis that answers, and answers no: over HTTP, on the command line, and to a worker."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
import redis

from app.cli.command_line import main
from app.core.config import Settings, get_settings
from app.embedded import EmbeddedValkey
from app.main import create_app
from app.models.stages import Stage
from tests.api.conftest import open_client
from tests.faults.site import COMPLETED, Site
from tests.faults.stages import RESULTS
from tests.serving import free_port

MODELS = "/api/admin/models"
WRITES: tuple[tuple[str, str, object], ...] = (
    ("PATCH", f"{MODELS}/qwen", {"top_p": 0.5}),
    ("POST", f"{MODELS}/mine", {"name": "Mine", "base_url": "http://127.0.0.1:9"}),
    ("POST", f"{MODELS}/seed", {"force": True}),
)
READS: tuple[tuple[str, str, object], ...] = (("GET", MODELS, None), ("GET", f"{MODELS}/qwen", None))

pytestmark = pytest.mark.usefixtures("patient_health")

Client = redis.Redis
_USERS = {
    "reader": "~* &* +@read +@connection",
    "stranger": "~other:* &* +@all",
    "nobody": "",
    "silent": "~* &* +@all -ping",
    "deaf": "~* &* +@all -xreadgroup",
}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("refusing") / "valkey", free_port(), is_admin=True) as valkey:
        with redis.Redis.from_url(valkey.url) as client:
            for user, rules in _USERS.items():
                client.execute_command("ACL", "SETUSER", user, "on", ">pw", *rules.split())
        yield valkey


def url_of(valkey: EmbeddedValkey, user: str = "", database: int = 0) -> str:
    place = urlsplit(valkey.url)
    login = f"{user}:pw" if user else f":{place.password}"
    return f"redis://{login}@{place.hostname}:{place.port}/{database}"


def be_broken(client: Client, folder: Path) -> None:
    (folder / "dump.rdb").mkdir(exist_ok=True)  # a snapshot cannot be renamed to that
    client.config_set("save", "3600 1")
    client.bgsave()
    deadline = time.monotonic() + 60
    while client.info("persistence")["rdb_last_bgsave_status"] != "err":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def be_whole(client: Client, folder: Path) -> None:
    client.config_set("save", "")


def be_full(client: Client, folder: Path) -> None:
    client.config_set("maxmemory", "1")


def be_empty(client: Client, folder: Path) -> None:
    client.config_set("maxmemory", "0")


def be_replica(client: Client, folder: Path) -> None:
    client.replicaof("127.0.0.1", "1")


def be_primary(client: Client, folder: Path) -> None:
    client.replicaof("NO", "ONE")


def be_foreign(client: Client, folder: Path) -> None:
    client.flushdb()
    client.mset(dict.fromkeys(("model:config:_keys", "model:config:qwen", "pipeline:requests"), "text"))


def be_own(client: Client, folder: Path) -> None:
    client.flushdb()


def be_busy(client: Client, folder: Path) -> None:
    client.config_set("busy-reply-threshold", "1")
    endless = redis.Redis(connection_pool=redis.ConnectionPool(**client.connection_pool.connection_kwargs))

    def run() -> None:
        with suppress(redis.RedisError):
            endless.eval("while true do end", 0)

    Thread(target=run, daemon=True).start()
    _wait_until_busy(client, is_busy=True)


def be_idle(client: Client, folder: Path) -> None:
    with suppress(redis.RedisError):
        client.script_kill()
    _wait_until_busy(client, is_busy=False)


def _wait_until_busy(client: Client, *, is_busy: bool) -> None:
    deadline = time.monotonic() + 60
    while _is_busy(client) is not is_busy:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_busy(client: Client) -> bool:
    try:
        client.ping()
    except redis.ResponseError:
        return True
    return False


def stay(client: Client, folder: Path) -> None:
    pass


Change = Callable[[Client, Path], None]
REFUSALS: dict[str, tuple[str, int, Change, Change, bool, str, str]] = {
    # user, database, what makes it refuse and what ends that, whether it takes reads, /health, a part of the sentence
    "MISCONF": ("", 0, be_broken, be_whole, True, "disconnected", "cannot save its data"),
    "OOM": ("", 0, be_full, be_empty, True, "connected", "no memory left"),
    "READONLY": ("", 0, be_replica, be_primary, True, "connected", "must name the primary"),
    "WRONGTYPE": ("", 0, be_foreign, be_own, False, "connected", "values of another program"),
    "BUSY": ("", 0, be_busy, be_idle, False, "disconnected", "busy with a script"),
    "NOPERM for writes": ("reader", 0, stay, stay, True, "connected", "grant the user"),
    "NOPERM for its keys": ("stranger", 0, stay, stay, False, "disconnected", "grant the user"),
    "NOPERM for everything": ("nobody", 0, stay, stay, False, "disconnected", "grant the user"),
    "WRONGPASS": ("unknown", 0, stay, stay, False, "disconnected", "user or the password"),
    "no such database": ("", 99, stay, stay, False, "disconnected", "no database of the number"),
}


@pytest.fixture(params=REFUSALS)
def refusal(request: pytest.FixtureRequest, valkey: EmbeddedValkey) -> Iterator[tuple[str, bool, str, str]]:
    """The address of a server that refuses for as long as a test lasts, and what is expected of it."""
    user, database, begin, end, takes_reads, word, sentence = REFUSALS[request.param]
    with redis.Redis.from_url(valkey.url) as client:
        client.flushdb()
        get_settings.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            _name_servers(patch, valkey.url)
            assert main(["models", "seed"]) == 0
        begin(client, valkey.data_dir)
        try:
            yield url_of(valkey, user, database), takes_reads, word, sentence
        finally:
            end(client, valkey.data_dir)


def _name_servers(patch: pytest.MonkeyPatch, redis_url: str) -> None:
    patch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    patch.setenv("REDIS_URL", redis_url)
    get_settings.cache_clear()


async def test_a_redis_that_refuses_is_503_with_its_reason(
    refusal: tuple[str, bool, str, str], own_database_url: str, tmp_path: Path
) -> None:
    redis_url, takes_reads, word, sentence = refusal
    settings = Settings(
        log_level="error", database_url=own_database_url, redis_url=redis_url, data_dir=tmp_path / "data"
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app), open_client(app) as client:
        for method, path, body in (*WRITES, *(() if takes_reads else READS)):
            answer = await client.request(method, path, json=body)
            assert answer.status_code == 503, (method, path, answer.text)
            assert sentence in answer.json()["detail"]
            assert answer.headers["Retry-After"]
        for method, path, body in READS if takes_reads else ():
            assert (await client.request(method, path, json=body)).status_code == 200
        assert (await client.get("/health")).json()["redis"] == word
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.get("/api/pipeline/active")).status_code == 200


def test_a_redis_that_refuses_is_one_sentence_on_the_command_line(
    refusal: tuple[str, bool, str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    redis_url, _, _, sentence = refusal
    _name_servers(monkeypatch, redis_url)
    capsys.readouterr()
    for command in (["set", "qwen", "--top-p", "0.5"], ["seed", "--force"]):
        assert main(["models", *command]) == 1
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert sentence in said.err
    get_settings.cache_clear()


async def test_a_user_without_ping_is_connected(valkey: EmbeddedValkey, own_database_url: str) -> None:
    app = create_app(Settings(log_level="error", database_url=own_database_url, redis_url=url_of(valkey, "silent")))
    async with app.router.lifespan_context(app), open_client(app) as client:
        assert (await client.get("/health")).json()["redis"] == "connected"


@pytest.mark.parametrize("refusal", ["MISCONF", "WRONGTYPE", "NOPERM for writes", "no such database"], indirect=True)
async def test_a_redis_that_refuses_keeps_no_run_from_its_end(
    refusal: tuple[str, bool, str, str], own_database_url: str, tmp_path: Path
) -> None:
    site = Site(own_database_url, refusal[0], tmp_path)
    async with site.connect() as conn:
        await conn.execute(RESULTS)
    run = await site.accept()
    async with site.worker():
        assert await site.ended(run) == COMPLETED
    assert site.stages(run) == list(Stage)


async def test_a_worker_that_may_enqueue_and_not_receive_takes_the_runs_it_finds(
    valkey: EmbeddedValkey, own_database_url: str, tmp_path: Path
) -> None:
    site = Site(own_database_url, url_of(valkey, "deaf"), tmp_path)
    async with site.connect() as conn:
        await conn.execute(RESULTS)
    run = await site.accept()
    async with site.worker():
        assert await site.ended(run) == COMPLETED


async def test_a_redis_that_runs_out_of_memory_keeps_no_run_from_its_end(
    valkey: EmbeddedValkey, own_database_url: str, tmp_path: Path
) -> None:
    site = Site(own_database_url, url_of(valkey), tmp_path)
    await site.prepare()
    async with site.worker():
        assert await site.ended(await site.start()) == COMPLETED
        with redis.Redis.from_url(valkey.url) as client:
            be_full(client, valkey.data_dir)
            try:
                run = await site.start()  # it is delivered no message, and its worker is refused nothing
                assert await site.ended(run) == COMPLETED
            finally:
                be_empty(client, valkey.data_dir)
    assert site.stages(run) == await site.results(run) == list(Stage)
