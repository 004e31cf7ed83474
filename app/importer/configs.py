"""Prompts and generation configs of an import: each is looked up once and counted once."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from app.core.errors import PromptHashCollision
from app.database import Connection
from app.importer.report import Kind, Notes, TableCount
from app.importer.rows import LegacyConfig
from app.repositories import GenerationConfigRepository, PromptRepository
from app.repositories.provenance import prompt_hash

_REMEMBERED = 4096
_PARAMETERS = tuple(each.name for each in fields(LegacyConfig) if each.name not in ("user_prompt", "system_prompt"))


@dataclass(slots=True)
class UsedConfigs:
    """What one video used: config ids, which rows are new, and which configs belong to no transcript."""

    ids: dict[LegacyConfig, int] = field(default_factory=dict)
    prompts: dict[str, bool] = field(default_factory=dict)
    configs: dict[bytes, bool] = field(default_factory=dict)
    shared: dict[bytes, int] = field(default_factory=dict)


class KnownConfigs:
    """What the videos so far used. A config that belongs to no transcript never changes again: its id is remembered."""

    def __init__(self) -> None:
        self._shared: OrderedDict[bytes, int] = OrderedDict()
        self._prompts: dict[str, bool] = {}
        self._configs: dict[bytes, bool] = {}

    def find(self, key: bytes) -> int | None:
        return self._shared.get(key)

    def forget(self) -> None:
        """Look everything up again: somebody has deleted a config."""
        self._shared.clear()

    def learn(self, used: UsedConfigs, is_stored: bool) -> None:
        """Take over what a video used; where it `is_stored`, its configs can be used again without a look."""
        for name, is_new in used.prompts.items():
            self._prompts[name] = self._prompts.get(name, False) or is_new
        for key, is_new in used.configs.items():
            self._configs[key] = self._configs.get(key, False) or is_new
        if is_stored:
            self._shared.update(used.shared)
            while len(self._shared) > _REMEMBERED:
                self._shared.popitem(last=False)

    def count(self) -> dict[str, TableCount]:
        """Return how many prompts and configs the videos used, each counted once."""
        return {"prompts": _count(self._prompts.values()), "generation_configs": _count(self._configs.values())}


async def store_configs(
    conn: Connection, configs: Iterable[LegacyConfig], transcript_id: int | None, known: KnownConfigs, notes: Notes
) -> UsedConfigs:
    """Return the configs' ids, inserted where they are new. Videos that are written at once do so in the same order."""
    used, unknown = UsedConfigs(), []
    for key, config in sorted({_key(config): config for config in set(configs)}.items()):
        if (config_id := known.find(key)) is not None:
            used.ids[config] = config_id
        else:
            unknown.append((key, config))
    if unknown:
        await _store_unknown(conn, unknown, transcript_id, used, notes)
    return used


async def _store_unknown(
    conn: Connection,
    configs: Iterable[tuple[bytes, LegacyConfig]],
    transcript_id: int | None,
    used: UsedConfigs,
    notes: Notes,
) -> None:
    cursor = await conn.execute("SELECT now() AT TIME ZONE 'utc'")
    (began,) = await anext(cursor)
    for key, config in configs:
        try:
            prompt = await PromptRepository(conn).get_or_create(config.user_prompt, config.system_prompt)
        except PromptHashCollision as error:
            notes.add(Kind.REFUSED, f"its moments have no config: {error}", asdict(config))
            continue
        stored = await GenerationConfigRepository(conn).get_or_create(
            prompt_id=prompt.id, transcript_id=transcript_id, **_parameters(config)
        )
        used.ids[config] = stored.id
        used.prompts[prompt.prompt_hash] = prompt.created_at == began
        used.configs[key] = stored.created_at == began
        if stored.transcript_id is None:
            used.shared[key] = stored.id


def _key(config: LegacyConfig) -> bytes:
    """Return what a config is known by: its prompt's hash first, which is also the order of writing."""
    name = prompt_hash(config.user_prompt, config.system_prompt)
    rest = repr([len(config.user_prompt), _parameters(config)])
    return bytes.fromhex(name) + hashlib.sha256(rest.encode()).digest()


def _parameters(config: LegacyConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _PARAMETERS}


def _count(are_new: Iterable[bool]) -> TableCount:
    flags = list(are_new)
    return TableCount(new=sum(flags), unchanged=len(flags) - sum(flags))
