"""`python -m app models …`: the registry of AI models on the command line."""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from redis.exceptions import RedisError

from app.ai.model_fields import KEY_REMOVED_NOTICE, ModelChanges, check_model_key, to_registry_values
from app.ai.registry import ModelConfig, ModelKind, ModelRegistry
from app.core.config import Settings
from app.core.console import open_console
from app.core.errors import InvalidInput
from app.core.masking import mask_secrets, mask_values
from app.core.redis import make_redis, redis_unavailable
from app.core.validation import describe_problem

_KEY_VARIABLE = "MODEL_API_KEY"
_FIELDS = ("name", "kind", "base_url", "model_id", "supports_video", "top_p", "top_k")

_console = open_console()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the actions to `parser`."""
    parser.description = "The AI models that runs use. One without an address is answered by this machine."
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    actions.add_parser("list", help="list all models")
    for name, text in (("show", "show one model"), ("delete", "delete one model")):
        actions.add_parser(name, help=text).add_argument("key", metavar="KEY", type=_key)
    _add_set_arguments(actions.add_parser("set", help="change the fields of a model that are given, or make a model"))
    seed = actions.add_parser("seed", help="fill an empty registry with the defaults")
    seed.add_argument("--force", action="store_true", help="put the defaults over what there is, addresses included")


def _add_set_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", type=_key)
    parser.add_argument("--name", help="what users are shown")
    parser.add_argument("--kind", choices=[str(kind) for kind in ModelKind], help="what its server speaks")
    parser.add_argument("--base-url", metavar="URL", help="address of its server; '' for none")
    parser.add_argument("--model-id", metavar="ID", help="what its server calls it; '' for none")
    parser.add_argument("--supports-video", action=argparse.BooleanOptionalAction, help="whether it looks at clips")
    parser.add_argument("--top-p", metavar="P", type=float)
    parser.add_argument("--top-k", metavar="K", type=int)
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument(
        "--api-key", action="store_true", help=f"set the API key: that of {_KEY_VARIABLE}, or one that is asked for"
    )
    secret.add_argument("--no-api-key", action="store_true", help="remove the API key")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked for and return the exit status."""
    changes = _read_changes(options) if options.action == "set" else {}
    asyncio.run(_run(options, settings, changes))
    return 0


async def _run(options: argparse.Namespace, settings: Settings, changes: Mapping[str, Any]) -> None:
    async with make_redis(settings) as redis:
        try:
            await _act(options, ModelRegistry(redis), changes)
        except RedisError as error:
            raise redis_unavailable(error) or error from None


async def _act(options: argparse.Namespace, registry: ModelRegistry, changes: Mapping[str, Any]) -> None:
    match options.action:
        case "list":
            _print_table(await registry.list_models())
        case "show":
            _show(options.key, await registry.get_existing_model(options.key))
        case "set":
            stored = await _set(registry, options.key, changes)
            _show(options.key, stored)
            if stored.is_key_removed:
                _console.print(KEY_REMOVED_NOTICE, markup=False)
        case "delete":
            await registry.delete_model(options.key)
            _console.print(f"Deleted {options.key}", markup=False)
        case "seed":
            _console.print(f"Seeded {await registry.seed_defaults(force=options.force)} models")


async def _set(registry: ModelRegistry, key: str, changes: Mapping[str, Any]) -> ModelConfig:
    if not changes or await registry.get_model(key) is not None:
        return await registry.update_model(key, changes)
    return await registry.put_model(key, ModelConfig(**{"name": key, **changes}))


def _read_changes(options: argparse.Namespace) -> Mapping[str, Any]:
    """Return the fields that are given. Raises `InvalidInput`, which names the one that cannot be."""
    given = {name: getattr(options, name) for name in _FIELDS if getattr(options, name) is not None}
    if options.api_key or options.no_api_key:
        given["api_key"] = _read_secret() if options.api_key else ""
    try:
        return to_registry_values(ModelChanges(**given), exclude_none=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        option = str(problem["loc"][0]).replace("_", "-")
        raise InvalidInput(describe_problem(f"--{option}", problem)) from None


def _read_secret() -> str:
    """Return an API key from where neither a list of processes nor a history of commands shows it."""
    if secret := os.environ.get(_KEY_VARIABLE):
        return secret
    secret = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not secret:
        raise InvalidInput(f"No API key: set {_KEY_VARIABLE}, or write it to standard input")
    return secret


def _print_table(models: Mapping[str, ModelConfig]) -> None:
    rows = [("key", "name", "kind", "answered by", "model id", "video", "API key")]
    for key, config in models.items():
        who = "this machine" if config.is_local else mask_secrets(config.base_url)
        secret = "set" if config.api_key else ""
        rows.append((key, config.name, config.kind, who, config.model_id or "", _yes(config.supports_video), secret))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        _console.print(line.rstrip(), markup=False)


def _show(key: str, config: ModelConfig) -> None:
    values = {name: mask_values(getattr(config, name)) for name in _FIELDS}
    values |= {"api_key": "set" if config.api_key else None, "updated_at": config.updated_at}
    for name, value in {"key": key, **values}.items():
        shown = _yes(value) if isinstance(value, bool) else "" if value is None else value
        _console.print(f"{name:14}  {shown}".rstrip(), markup=False)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _key(text: str) -> str:
    try:
        return check_model_key(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"a key {error}") from None
