"""The peer's importer: a legacy folder into the tables with json and the ORM's session."""

import asyncio
import hashlib
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tests.performance.peer_models import GenerationConfig, Moment, Prompt, Transcript, Video

_BATCH = 50


class Importer:
    """Turns documents into models; prompts and configs are stored once."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._prompts: dict[str, Prompt] = {}
        self._configs: dict[str, GenerationConfig] = {}
        self._moment_ids: set[str] = set()

    def add(self, identifier: str, transcript: dict[str, Any], moments: list[dict[str, Any]]) -> None:
        video = Video(identifier=identifier, cloud_url=f"file:///library/videos/{identifier}.mp4")
        video.transcripts = [self._transcript(transcript)]
        originals: dict[str, Moment] = {}
        for document in moments:
            moment = self._moment(document)
            moment.parent = originals.get(document["parent_id"])
            originals[document["id"]] = moment
            video.moments.append(moment)
        self._session.add_all([video, *video.moments])

    def _transcript(self, document: dict[str, Any]) -> Transcript:
        return Transcript(
            full_text=document["transcription"],
            word_timestamps=document["word_timestamps"],
            segment_timestamps=document["segment_timestamps"],
            number_of_words=document["metadata"]["total_words"],
            number_of_segments=document["metadata"]["total_segments"],
            processing_time_seconds=document["processing_time"],
        )

    def _moment(self, document: dict[str, Any]) -> Moment:
        config = document["generation_config"]
        identifier = document["id"] if document["id"] not in self._moment_ids else secrets.token_hex(8)
        self._moment_ids.add(identifier)
        return Moment(
            identifier=identifier,
            start_time=document["start_time"],
            end_time=document["end_time"],
            title=document["title"],
            is_refined=document["is_refined"],
            generation_model=document["model_name"],
            generation_config=self._config(config) if config else None,
        )

    def _config(self, document: dict[str, Any]) -> GenerationConfig:
        prompt = self._prompt(document["user_prompt"], document["complete_prompt"])
        values = {
            "model": document["model"],
            "operation_type": document["operation_type"],
            "temperature": document["temperature"],
            "min_moment_length": document.get("min_moment_length"),
            "max_moment_length": document.get("max_moment_length"),
            "min_moments": document.get("min_moments"),
            "max_moments": document.get("max_moments"),
        }
        key = hashlib.sha256(json.dumps([prompt.prompt_hash, values]).encode()).hexdigest()
        if key not in self._configs:
            self._configs[key] = GenerationConfig(prompt=prompt, config_hash=key, **values)
        return self._configs[key]

    def _prompt(self, user_prompt: str, system_prompt: str) -> Prompt:
        key = hashlib.sha256((user_prompt + system_prompt).encode()).hexdigest()
        if key not in self._prompts:
            self._prompts[key] = Prompt(user_prompt=user_prompt, system_prompt=system_prompt, prompt_hash=key)
        return self._prompts[key]


async def import_folder(folder: Path, url: str) -> None:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        importer = Importer(session)
        for number, path in enumerate(sorted((folder / "transcripts").glob("*.json")), start=1):
            with path.open() as transcript, (folder / "moments" / path.name).open() as moments:
                importer.add(path.stem, json.load(transcript), json.load(moments))
            if number % _BATCH == 0:
                await session.commit()
        await session.commit()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(import_folder(Path(sys.argv[1]), os.environ["DATABASE_URL"]))
