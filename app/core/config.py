"""Settings: the environment and `.env`, read once. The README's table and `.env.example` come from this class."""

import base64
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.addresses import ANY_ORIGIN, AllowedOrigins, parse_authority, parse_host_name, parse_url_origin
from app.core.api_keys import ApiKey, parse_api_keys
from app.core.errors import ConfigurationError
from app.core.masking import remember_secret
from app.core.postgres_url import parse_database_url
from app.core.validation import describe_validation_error

_LEAST_SECRET, _MOST_SECRET = 24, 64  # bytes
_ENV_FILE = ".env"
_DATABASE_URLS = ("database_url", "database_sync_url")
_LOOPBACK_ORIGINS = tuple(
    f"{scheme}://{host}:*" for host in ("localhost", "127.0.0.1", "[::1]") for scheme in ("http", "https")
)


class Settings(BaseSettings):
    """One attribute for each environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=_ENV_FILE, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: SecretStr = Field(
        SecretStr("postgresql://postgres:postgres@localhost:5432/videomoments"),
        description="The database. Any PostgreSQL scheme, options after `?`, sockets and percent-encoded passwords.",
    )
    database_sync_url: SecretStr | None = Field(
        None, description="The database Alembic migrates, where that is not `DATABASE_URL`."
    )
    database_pool_size: int = Field(5, ge=1, le=1000, description="Connections that are kept open.")
    database_max_overflow: int = Field(
        10, ge=0, le=1000, description="Connections above those, opened under load and closed when idle."
    )
    database_pool_timeout: float = Field(
        30,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds a request waits for a connection before it gets 503.",
    )
    database_echo: bool = Field(False, description="Log each SQL statement with its time.")
    database_max_waiting: int = Field(
        1000, ge=1, description="Requests that may wait for a connection; one more gets 503 at once."
    )
    database_connect_timeout: int = Field(5, ge=2, le=300, description="Seconds to open a connection.")
    database_statement_timeout: float = Field(
        30, ge=0, le=86400, allow_inf_nan=False, description="Seconds a statement may run; 0 is no limit."
    )
    database_lock_timeout: float = Field(
        10, ge=0, le=86400, allow_inf_nan=False, description="Seconds a statement waits for a lock; 0 is no limit."
    )
    database_idle_transaction_timeout: float = Field(
        60, ge=0, le=86400, allow_inf_nan=False, description="Seconds a transaction may lie idle; 0 is no limit."
    )
    database_prepared_statements: bool | None = Field(
        None,
        description="Prepare statements on the server; where it is not set, they are unless a pooler is in between.",
    )
    database_application_name: str = Field(
        "videomoments", min_length=1, max_length=63, description="Name of the connections in `pg_stat_activity`."
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="The Redis or Valkey server that holds the messages of the queue, live progress and the models.",
    )
    storage_url: str | None = Field(
        None,
        description="Where videos, clips and thumbnails are kept: `file:///folder` or `gs://bucket/prefix`; "
        "the folder `media` in `DATA_DIR` where it is not set.",
    )
    library_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders of imported libraries, separated by commas: their files are served and never changed."
    )
    signed_url_seconds: int = Field(
        3600, ge=60, le=604800, description="Seconds for which an address that a bucket serves stays good."
    )
    max_upload_bytes: int = Field(10 * 1024**3, ge=1, description="Bytes that an uploaded video may have.")
    max_body_bytes: int = Field(1024**2, ge=1024, description="Bytes that the body of any other request may have.")
    max_download_bytes: int = Field(
        10 * 1024**3, ge=1, description="Bytes that a video may have that is downloaded from a URL."
    )
    max_video_hours: float = Field(
        12,
        gt=0,
        le=37,
        allow_inf_nan=False,
        description="Hours that a video may last that is uploaded, downloaded or processed, at most 37; "
        "longer ones that are stored already play.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts, as `host` or `host:port` and separated by commas, that videos are downloaded from and "
        "callbacks sent to although their addresses are not public; link-local ones and those of clouds' metadata "
        "services never are.",
    )
    run_pipeline_worker: bool | None = Field(
        None, description="Run a pipeline worker inside the server; where it is not set, only `make run` does."
    )
    pipeline_concurrency: int = Field(2, ge=1, le=100, description="Stages that one worker executes at once.")
    worker_metrics: str | None = Field(
        None,
        description="Address, as `127.0.0.1:9100`, where a worker serves its metrics for Prometheus; each worker of a "
        "machine needs a port of its own.",
    )
    limit_audio: int = Field(2, ge=1, le=1000, description="Audio stages executed at once, over all workers.")
    limit_transcription: int = Field(
        2, ge=1, le=1000, description="Transcript stages executed at once, over all workers."
    )
    limit_generation: int = Field(2, ge=1, le=1000, description="Generation stages executed at once, over all workers.")
    limit_clips: int = Field(
        2,
        ge=1,
        le=1000,
        description="Clip stages executed at once, over all workers; each cuts up to four clips at a time.",
    )
    limit_refinement: int = Field(2, ge=1, le=1000, description="Refinement stages executed at once, over all workers.")
    local_whisper: Literal["auto", "tiny.en", "base"] = Field(
        "auto",
        description="Model of the local transcriber; `auto` is `tiny.en` where English is spoken and `base` elsewhere.",
    )
    search_embedding_model: str = Field(
        "local",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="Key of the model, of the kind `embedding` or `local`, that searches by meaning use; workers embed "
        "all passages anew when it changes.",
    )
    public_url: str | None = Field(
        None, description="Address of this server as AI services reach it, for those that fetch audio and clips."
    )
    callback_secret: SecretStr | None = Field(
        None, description="Key that callbacks are signed with, `whsec_` and base64; without it there are none."
    )
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = Field(
        (),
        description="Hashes of the keys that clients must send, separated by commas, as `python -m app keys new` "
        "prints them; none: everybody may do everything.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address the API listens on.")
    port: int = Field(7005, ge=1, le=65535, description="Port the API listens on.")
    allowed_host_names: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names, separated by commas, under which clients reach this server, beside those of loopback and "
        "in `HOST` and `PUBLIC_URL`; `*` is every name. With `API_KEYS`, names are checked only where this is set.",
    )
    allow_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        _LOOPBACK_ORIGINS,
        description="Origins whose pages may use this server in a browser, separated by commas, as "
        "`https://app.example`; `:*` is any port, and `*` alone every origin.",
    )
    limit_concurrency: int = Field(
        1000, ge=1, description="Connections that the server holds at once; one more gets 503."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`json`, `text`, or `auto`: text on a terminal and JSON elsewhere."
    )
    data_dir: Path = Field(
        Path(".data"),
        description="Folder of the media where `STORAGE_URL` is not set, of what imports have noted, "
        "and of the PostgreSQL and Valkey that `make run` starts where no URL is set.",
    )

    @field_validator(*_DATABASE_URLS)
    @classmethod
    def _check_database_url(cls, value: SecretStr | None, info: Any) -> SecretStr | None:
        if value is not None:
            parse_database_url(value.get_secret_value(), info.field_name.upper())
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ConfigurationError("REDIS_URL must start with redis://, rediss:// or unix://")
        try:
            port = redis.ConnectionPool.from_url(url).make_connection().__dict__.get("port", 6379)
        except Exception:  # what it says may hold a part of the password
            port = 0
        if not 0 < port < 65536:
            raise ConfigurationError("REDIS_URL cannot be read as an address")
        return value

    @field_validator("callback_secret")
    @classmethod
    def _check_callback_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _LEAST_SECRET <= len(_decode_callback_secret(value)) <= _MOST_SECRET:
            raise ConfigurationError("CALLBACK_SECRET must be whsec_ and the base64 of 24 to 64 random bytes")
        return value

    @field_validator("allow_origins", "allowed_host_names", "library_dirs", "allowed_hosts", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("allow_origins")
    @classmethod
    def _check_allow_origins(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            try:
                AllowedOrigins((entry,))
            except ValueError:
                shown = "an entry" if "@" in entry else f'"{entry}"'  # it may hold a password
                raise ConfigurationError(
                    f"ALLOW_ORIGINS must be origins like https://app.example or http://localhost:*, or *: {shown} is "
                    "none, write scheme, host and port without a path or a slash at the end"
                ) from None
        return entries

    @field_validator("allowed_host_names")
    @classmethod
    def _normalize_host_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(name if name == ANY_ORIGIN else parse_host_name(name) for name in names)
        except ValueError:
            raise ConfigurationError(
                "ALLOWED_HOST_NAMES must be names or addresses like videos.example, without a scheme or a port, or *"
            ) from None

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                parse_url_origin(value)
        except ValueError:
            raise ConfigurationError("PUBLIC_URL must be an address like https://videos.example") from None
        return value

    @field_validator("worker_metrics")
    @classmethod
    def _check_worker_metrics(cls, value: str | None) -> str | None:
        try:
            if value is not None and not parse_authority(value)[1]:
                raise ValueError("not a port")
        except ValueError:
            raise ConfigurationError("WORKER_METRICS must be an address and a port like 127.0.0.1:9100") from None
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _parse_api_keys(cls, value: Any) -> Any:
        return parse_api_keys(cls._split_at_commas(value)) if isinstance(value, str) else value

    @property
    def database_parameters(self) -> dict[str, str]:
        return parse_database_url(self.database_url.get_secret_value(), "DATABASE_URL")

    @property
    def migration_parameters(self) -> dict[str, str]:
        if self.database_sync_url is None:
            return self.database_parameters
        return parse_database_url(self.database_sync_url.get_secret_value(), "DATABASE_SYNC_URL")

    @property
    def worker_metrics_address(self) -> tuple[str, int] | None:
        host, port = parse_authority(self.worker_metrics) if self.worker_metrics else ("", None)
        return None if port is None else (host, port)

    def remember_secrets(self) -> None:
        for parameters in (self.database_parameters, self.migration_parameters):
            names = {parameters.get("user"), parameters.get("dbname")}
            remember_secret(*({parameters.get("password", ""), parameters.get("sslpassword", "")} - names))
        remember_secret(
            *_list_passwords_in_url(self.redis_url.get_secret_value()), *_list_passwords_in_url(self.public_url or "")
        )
        if self.callback_secret is not None:
            key = self.callback_secret.get_secret_value()
            remember_secret(key, key.removeprefix("whsec_"))


def load_settings() -> Settings:
    _check_env_file(Path(_ENV_FILE))
    try:
        settings = Settings()
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = str(problem["loc"][0]).upper()
        raise ConfigurationError(describe_validation_error(name, problem)) from None
    except UnicodeDecodeError:
        raise ConfigurationError("The file .env is not UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"The file .env cannot be read: {error.strerror}") from None
    settings.remember_secrets()
    return settings


def _check_env_file(path: Path) -> None:
    if path.is_dir():  # Docker makes one where it is to mount a file that does not exist
        raise ConfigurationError("The file .env is a folder: rename it, and write settings to a file of that name")
    if path.is_symlink() and not path.exists():
        raise ConfigurationError("The file .env is a link to a file that does not exist")


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    return load_settings()


def describe_settings() -> Iterator[tuple[str, str, str]]:
    """Yield the variable, default and description of each setting."""
    for name, field in Settings.model_fields.items():
        yield name.upper(), _format_setting_value(field.default), field.description or ""


def _list_passwords_in_url(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if password != user:
        yield unquote(password)
    yield from parse_qs(parts.query).get("password", [])


def _decode_callback_secret(secret: SecretStr) -> bytes:
    try:
        return base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except ValueError:
        return b""


def _format_setting_value(value: Any) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return value.get_secret_value()
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)
