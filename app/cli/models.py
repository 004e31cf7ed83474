"""`python -m app models …`: the registry of AI models on the command line."""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli.servers import open_servers
from app.core.console import open_console
from app.core.errors import InvalidInput
from app.core.masking import mask_secrets, mask_values

if TYPE_CHECKING:
    from app.ai.registry import ModelConfig, ModelRegistry

T = TypeVar("T")

_KEY_VARIABLE = "MODEL_API_KEY"
_FIELDS = ("name", "kind", "base_url", "model_id", "supports_video", "top_p", "top_k")

_console = open_console()

models = typer.Typer(
    rich_markup_mode=None, help="The AI models that runs use. One without an address is answered by this machine."
)


def _parse_model_key(text: str) -> str:
    from app.ai.model_fields import check_model_key

    try:
        return check_model_key(text)
    except ValueError as error:
        raise typer.BadParameter(f"a key {error}") from None


def _parse_model_kind(text: str) -> str:
    from app.ai.registry import ModelKind

    if text not in set(ModelKind):
        raise typer.BadParameter(f"one of {', '.join(ModelKind)} is needed")
    return text


_Key = Annotated[str, typer.Argument(metavar="KEY", parser=_parse_model_key)]


@models.command("list")
def print_models() -> int:
    """List all models."""
    _print_models_table(_call_with_model_registry(lambda registry: registry.list_models()))
    return 0


@models.command("show")
def print_model(key: _Key) -> int:
    """Show one model."""
    _print_model_fields(key, _call_with_model_registry(lambda registry: registry.get_existing_model(key)))
    return 0


@models.command("delete")
def delete_model(key: _Key) -> int:
    """Delete one model."""
    _call_with_model_registry(lambda registry: registry.delete_model(key))
    _console.print(f"Deleted {key}", markup=False)
    return 0


@models.command("seed")
def seed_models(
    force: Annotated[
        bool, typer.Option("--force", help="put the defaults over what there is, addresses included")
    ] = False,
) -> int:
    """Fill an empty registry with the defaults."""
    count = _call_with_model_registry(lambda registry: registry.seed_defaults(force=force))
    _console.print(f"Seeded {count} models")
    return 0


@models.command("set", short_help="Change the fields of a model, or make one.")
def set_model(
    key: _Key,
    name: Annotated[str | None, typer.Option(help="what users are shown")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            parser=_parse_model_kind,
            help="its protocol: chat, transcription, parakeet, embedding or local",
        ),
    ] = None,
    base_url: Annotated[str | None, typer.Option(metavar="URL", help="address of its server; '' for none")] = None,
    model_id: Annotated[str | None, typer.Option(metavar="ID", help="what its server calls it; '' for none")] = None,
    supports_video: Annotated[bool | None, typer.Option(help="whether it looks at clips")] = None,
    top_p: Annotated[float | None, typer.Option(metavar="P")] = None,
    top_k: Annotated[int | None, typer.Option(metavar="K")] = None,
    api_key: Annotated[
        bool, typer.Option("--api-key", help=f"set the API key: that of {_KEY_VARIABLE}, or one that is asked for")
    ] = False,
    no_api_key: Annotated[bool, typer.Option("--no-api-key", help="remove the API key")] = False,
) -> int:
    """Change the fields of a model that are given, or make a model."""
    from app.ai.model_fields import KEY_REMOVED_NOTICE

    if api_key and no_api_key:
        raise typer.BadParameter("not allowed with --api-key", param_hint="'--no-api-key'")
    values = (name, kind, base_url, model_id, supports_video, top_p, top_k)
    given: dict[str, Any] = {field: value for field, value in zip(_FIELDS, values, strict=True) if value is not None}
    if api_key or no_api_key:
        given["api_key"] = _read_api_key() if api_key else ""
    changes = _parse_model_changes(given)
    stored = _call_with_model_registry(lambda registry: _create_or_update_model(registry, key, changes))
    _print_model_fields(key, stored)
    if stored.is_key_removed:
        _console.print(KEY_REMOVED_NOTICE, markup=False)
    return 0


def _call_with_model_registry(action: "Callable[[ModelRegistry], Awaitable[T]]") -> T:
    from redis.exceptions import RedisError

    from app.ai.registry import ModelRegistry
    from app.core.redis import make_redis, translate_redis_error

    async def act() -> T:
        async with make_redis(settings) as redis:
            try:
                return await action(ModelRegistry(redis))
            except RedisError as error:
                raise translate_redis_error(error) or error from None

    with open_servers(redis=True) as settings:
        return asyncio.run(act())


async def _create_or_update_model(registry: "ModelRegistry", key: str, changes: Mapping[str, Any]) -> "ModelConfig":
    from app.ai.registry import ModelConfig

    if not changes or await registry.get_model(key) is not None:
        return await registry.update_model(key, changes)
    return await registry.put_model(key, ModelConfig(**{"name": key, **changes}))


def _parse_model_changes(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the validated fields as the registry stores them. Raises `InvalidInput` for the first invalid one."""
    from pydantic import ValidationError

    from app.ai.model_fields import ModelChanges, model_to_registry_values
    from app.core.validation import describe_validation_error

    try:
        return model_to_registry_values(ModelChanges(**given), exclude_none=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        option = str(problem["loc"][0]).replace("_", "-")
        raise InvalidInput(describe_validation_error(f"--{option}", problem)) from None


def _read_api_key() -> str:  # from where no list of processes and no history of commands shows it
    if secret := os.environ.get(_KEY_VARIABLE):
        return secret
    secret = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not secret:
        raise InvalidInput(f"No API key: set {_KEY_VARIABLE}, or write it to standard input")
    return secret


def _print_models_table(models: "Mapping[str, ModelConfig]") -> None:
    rows = [("key", "name", "kind", "answered by", "model id", "video", "API key")]
    for key, config in models.items():
        who = "this machine" if config.is_local else mask_secrets(config.base_url)
        secret = "set" if config.api_key else ""
        rows.append(
            (key, config.name, config.kind, who, config.model_id or "", _yes_or_no(config.supports_video), secret)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        _console.print(line.rstrip(), markup=False)


def _print_model_fields(key: str, config: "ModelConfig") -> None:
    values = {name: mask_values(getattr(config, name)) for name in _FIELDS}
    values |= {"api_key": "set" if config.api_key else None, "updated_at": config.updated_at}
    for name, value in {"key": key, **values}.items():
        shown = _yes_or_no(value) if isinstance(value, bool) else "" if value is None else value
        _console.print(f"{name:14}  {shown}".rstrip(), markup=False)


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
