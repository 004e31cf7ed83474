"""The settings: defaults, what overrules what, what is refused and in which words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from app.core.config import Settings, describe_settings, load_settings
from app.core.errors import ConfigurationError
from tests.core.settings_documents import ENV_FILE, README, make_env_file, make_readme_table

_ROOT = Path(__file__).resolve().parents[2]


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert raised.value.__cause__ is None
    return str(raised.value)


def test_the_six_database_settings_have_the_defaults_of_the_plan() -> None:
    settings = Settings()
    assert settings.database_url.get_secret_value() == "postgresql://postgres:postgres@localhost:5432/videomoments"
    assert settings.migration_parameters == settings.database_parameters
    assert settings.database_pool_size == 5
    assert settings.database_max_overflow == 10
    assert settings.database_pool_timeout == 30
    assert settings.database_echo is False


def test_every_other_setting_has_its_default() -> None:
    settings = Settings()
    assert settings.model_dump(exclude={"database_url", "redis_url"}) == {
        "database_sync_url": None,
        "database_pool_size": 5,
        "database_max_overflow": 10,
        "database_pool_timeout": 30,
        "database_echo": False,
        "database_max_waiting": 1000,
        "database_connect_timeout": 5,
        "database_statement_timeout": 30,
        "database_lock_timeout": 10,
        "database_idle_transaction_timeout": 60,
        "database_prepared_statements": None,
        "database_application_name": "videomoments",
        "storage_url": None,
        "library_dirs": (),
        "signed_url_seconds": 3600,
        "max_upload_bytes": 10 * 1024**3,
        "max_body_bytes": 1024**2,
        "max_download_bytes": 10 * 1024**3,
        "max_video_hours": 12,
        "allowed_hosts": (),
        "run_pipeline_worker": None,
        "pipeline_concurrency": 2,
        "worker_metrics": None,
        "limit_audio": 2,
        "limit_transcription": 2,
        "limit_generation": 2,
        "limit_clips": 2,
        "limit_refinement": 2,
        "local_whisper": "auto",
        "search_embedding_model": "local",
        "public_url": None,
        "callback_secret": None,
        "api_keys": (),
        "host": "127.0.0.1",
        "port": 7005,
        "allowed_host_names": (),
        "allow_origins": (
            "http://localhost:*",
            "https://localhost:*",
            "http://127.0.0.1:*",
            "https://127.0.0.1:*",
            "http://[::1]:*",
            "https://[::1]:*",
        ),
        "limit_concurrency": 1000,
        "log_level": "info",
        "log_format": "auto",
        "data_dir": Path(".data"),
    }
    assert settings.redis_url.get_secret_value() == "redis://localhost:6379/0"


def test_alembic_alone_uses_the_sync_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_SYNC_URL", "postgresql+psycopg2://me@other:1/elsewhere")
    settings = load_settings()
    assert settings.migration_parameters == {"user": "me", "host": "other", "port": "1", "dbname": "elsewhere"}
    assert settings.database_parameters == Settings(database_sync_url=None).database_parameters


def test_the_database_url_serves_alembic_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://me@other:1/elsewhere")
    assert load_settings().migration_parameters["dbname"] == "elsewhere"


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_an_empty_value_is_an_unset_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    assert load_settings() == Settings()


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_ORIGINS", "https://a.example, https://b.example,")
    assert load_settings().allow_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    "entry",
    [
        "https://a.example/",
        "https://a.example/x",
        "a.example",
        "localhost:3005",
        "null",
        "file://",
        "https://*.example",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, "ALLOW_ORIGINS", f"https://b.example,{entry}")
    assert sentence.startswith("ALLOW_ORIGINS must be origins like https://app.example")
    assert f'"{entry}"' in sentence


def test_a_password_in_an_origin_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "secret" not in refusal(monkeypatch, "ALLOW_ORIGINS", "https://me:secret@a.example")


@pytest.mark.parametrize("name", ["http://a.example", "a.example:7005", "a/b", "*.example", "a b"])
def test_a_host_name_is_a_name_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, "ALLOWED_HOST_NAMES", name).startswith("ALLOWED_HOST_NAMES must be names or addresses")


def test_host_names_have_one_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_HOST_NAMES", "Videos.Example., [::1],10.0.0.5")
    assert load_settings().allowed_host_names == ("videos.example", "::1", "10.0.0.5")


@pytest.mark.parametrize("url", ["videos.example", "ftp://videos.example", "https://", "https://a b/"])
def test_a_public_url_names_a_host(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, "PUBLIC_URL", url).startswith("PUBLIC_URL must be an address like https://")


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    return tmp_path / ".env"


def test_a_dotenv_file_is_read(env_file: Path) -> None:
    env_file.write_text("# comment\nDATABASE_POOL_SIZE=7\nSOMETHING_ELSE=x\nDATABASE_URL='postgresql://h/quoted'\n")
    settings = load_settings()
    assert settings.database_pool_size == 7
    assert settings.database_parameters["dbname"] == "quoted"


def test_the_environment_wins_over_the_dotenv_file(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("DATABASE_POOL_SIZE=7\nPORT=8000\n")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "8")
    settings = load_settings()
    assert (settings.database_pool_size, settings.port) == (8, 8000)


def test_a_dotenv_file_that_is_no_text_is_one_sentence(env_file: Path) -> None:
    env_file.write_bytes(b"DATABASE_URL=postgresql://me:\xff\xfe@h/d\n")
    with pytest.raises(ConfigurationError, match=r"^The file \.env is not UTF-8$"):
        load_settings()


def test_a_dotenv_that_is_a_folder_is_one_sentence(env_file: Path) -> None:
    env_file.unlink(missing_ok=True)
    env_file.mkdir()
    with pytest.raises(ConfigurationError, match=r"^The file \.env is a folder: "):
        load_settings()


def test_a_dotenv_that_is_a_broken_link_is_one_sentence(env_file: Path) -> None:
    env_file.unlink(missing_ok=True)
    env_file.symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"^The file \.env is a link to a file that does not exist$"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DATABASE_URL", "mysql://me:hunter2@h/d", "DATABASE_URL must be a PostgreSQL address"),
        ("DATABASE_URL", "postgresql:///d", "DATABASE_URL names no host and no socket"),
        ("DATABASE_SYNC_URL", "postgresql://me:hunter2@h", "DATABASE_SYNC_URL names no database"),
        ("DATABASE_POOL_SIZE", "0", "DATABASE_POOL_SIZE must be 1 or more"),
        ("DATABASE_POOL_SIZE", "five", "DATABASE_POOL_SIZE must be a whole number"),
        ("DATABASE_MAX_OVERFLOW", "-1", "DATABASE_MAX_OVERFLOW must be 0 or more"),
        ("DATABASE_POOL_TIMEOUT", "nan", "DATABASE_POOL_TIMEOUT must be a finite number"),
        ("DATABASE_POOL_TIMEOUT", "0", "DATABASE_POOL_TIMEOUT must be more than 0"),
        ("DATABASE_STATEMENT_TIMEOUT", "inf", "DATABASE_STATEMENT_TIMEOUT must be a finite number"),
        ("DATABASE_ECHO", "perhaps", "DATABASE_ECHO must be true or false"),
        ("DATABASE_APPLICATION_NAME", "x" * 64, "DATABASE_APPLICATION_NAME must have at most 63 characters"),
        ("PORT", "70000", "PORT must be 65535 or less"),
        ("WORKER_METRICS", "9100", "WORKER_METRICS must be an address and a port like 127.0.0.1:9100"),
        ("WORKER_METRICS", "127.0.0.1", "WORKER_METRICS must be an address and a port like 127.0.0.1:9100"),
        ("WORKER_METRICS", "127.0.0.1:0", "WORKER_METRICS must be an address and a port like 127.0.0.1:9100"),
        ("WORKER_METRICS", "http://me:hunter2@h:9100", "WORKER_METRICS must be an address and a port like"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL must be 'debug', 'info', 'warning' or 'error'"),
        ("REDIS_URL", "http://:hunter2@h", "REDIS_URL must start with redis://, rediss:// or unix://"),
    ],
)
def test_a_value_that_cannot_work_is_one_sentence_that_names_the_setting(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(monkeypatch, name, value)
    assert message.startswith(sentence)
    assert "hunter2" not in message
    assert "\n" not in message


@given(password=st.text("ABCDEFGHJKLMNPQRSTUVWXYZ", min_size=8))
def test_settings_do_not_show_a_password(password: str) -> None:
    settings = Settings(
        database_url=SecretStr(f"postgresql://me:{password}@h/d"),
        database_sync_url=SecretStr(f"postgresql://h/d?password={password}"),
        redis_url=SecretStr(f"redis://:{password}@h"),
    )
    assert settings.database_parameters["password"] == password
    assert password not in repr(settings) + str(settings) + settings.model_dump_json()


def test_an_error_of_pydantic_does_not_show_the_value() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings(port="hunter2")
    assert "hunter2" not in str(raised.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(Settings(), "port", 1)  # noqa: B010  mypy would refuse the plain form as well


def test_every_setting_says_what_it_means() -> None:
    assert all(meaning.endswith(".") for _, _, meaning in describe_settings())


def test_the_example_file_lists_every_setting_with_its_default() -> None:
    assert ENV_FILE.read_text() == make_env_file()


def test_the_example_file_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", ENV_FILE)
    assert load_settings() == Settings(_env_file=None)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    assert make_readme_table() in README.read_text()


@pytest.mark.parametrize(
    "url",
    [
        "http://host/0",
        "redis://user:sec/ret@host/0",
        "redis://:secret@host:abc/0",
        "redis://:secret@[::1/0",
        "redis://:secret@host:99999/0",
        "redis://:secret@host/0?foo=bar",
    ],
)
def test_a_redis_address_that_cannot_work_is_one_sentence_without_the_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert str(raised.value).startswith("REDIS_URL ")
    assert "sec" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["redis://host", "rediss://u:p@host:1/2", "unix:///run/redis.sock", "redis://[::1]:1/0"]
)
def test_a_redis_address_may_have_every_form_that_redis_knows(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert load_settings().redis_url.get_secret_value() == url
