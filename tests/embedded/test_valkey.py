"""The embedded Valkey."""

from pathlib import Path

import pytest
import redis

from app.embedded import EmbeddedError, EmbeddedValkey


def test_the_server_listens_on_a_socket_only_and_appends_to_disk(tmp_path: Path) -> None:
    with (
        EmbeddedValkey(tmp_path / "data", is_admin=True) as valkey,
        redis.Redis.from_url(valkey.url, decode_responses=True) as client,
    ):
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("protected-mode") == {"protected-mode": "yes"}
    assert (tmp_path / "data" / "appendonlydir").is_dir()


def test_a_stream_and_its_consumer_group_outlast_a_restart(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "data") as valkey, redis.Redis.from_url(valkey.url) as client:
        client.xgroup_create("runs", "workers", id="0", mkstream=True)
        client.xadd("runs", {"video": "1"})
        client.xreadgroup("workers", "one", {"runs": ">"})
    with EmbeddedValkey(tmp_path / "data") as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.xpending("runs", "workers")["pending"] == 1


def test_a_cut_off_append_log_still_starts(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "data") as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("first", "1")
        client.set("second", "2")
    (log,) = (tmp_path / "data" / "appendonlydir").glob("*.incr.aof")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 3)
    with EmbeddedValkey(tmp_path / "data") as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.get("first") is not None


def test_a_start_that_fails_quotes_the_log(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"Valkey did not start: .*between 0 and 65535"):
        EmbeddedValkey(tmp_path / "data", 99999).start()
