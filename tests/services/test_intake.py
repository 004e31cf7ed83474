"""Requests of other programs: which entries become runs, and why others are rejected."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ai.registry import ModelConfig, ModelRegistry
from app.core.masking import remember_secret
from app.core.text import is_utf8
from app.models.runs import RunRequest, RunStatus
from app.models.stages import RunType
from app.repositories import RunRepository, VideoRepository
from app.repositories.runs import make_run_identifier
from app.services.intake import RejectedStreamEntry
from app.services.queue import enqueue_run
from tests.factories import make_run, make_video
from tests.intakes import PREVIOUS, IntakeSite

ENTRY = "1795346931771-0"
NOT_PUBLIC = "The host of the URL is not a public one: name it in ALLOWED_HOSTS where it may be connected to"
URL = "https://cdn.example/a/My Video_File.MP4?x=1"


@pytest.fixture
async def site(own_database_url: str, redis_url: str, tmp_path: Path) -> IntakeSite:
    site = IntakeSite(own_database_url, redis_url, tmp_path)
    await site.prepare("talk")
    return site


def make_fields(config: object = None, **fields: str) -> dict[bytes, bytes]:
    """An entry over the video `talk`; `config` may be JSON text, too."""
    text = config if isinstance(config, str) else json.dumps(config or {})
    named = {"request_id": "pipeline:talk:1", "video_id": "talk", "config": text, "requested_at": "1795346931.77"}
    return {name.encode(): value.encode() for name, value in (named | fields).items() if value or name in fields}


async def process(site: IntakeSite, fields: Mapping[bytes, bytes], entry_id: str = ENTRY) -> str:
    """Return the reason why the entry was rejected, or ''."""
    async with site.requests() as requests:
        await requests.enqueue_or_reject(entry_id, fields)
    reasons = [each.reason for each in await site.rejected() if each.entry_id.startswith(entry_id)]
    return reasons[-1] if reasons else ""


async def end_run(site: IntakeSite, identifier: str) -> None:
    async with site.connect() as conn:
        runs = RunRepository(conn)
        run = await runs.get_by_identifier(identifier)
        assert run is not None
        await runs.update(run.id, status=RunStatus.COMPLETED)


async def test_each_option_of_a_config_becomes_that_of_the_run(site: IntakeSite) -> None:
    options = {
        "generation_model": "minimax",
        "refinement_model": "qwen",
        "generation_temperature": 0.1,
        "refinement_temperature": 0.2,
        "min_moment_length": 20.0,
        "max_moment_length": 90.0,
        "min_moments": 2,
        "max_moments": 5,
        "generation_prompt": "The best jokes",
        "refinement_prompt": "Begin with a word",
        "refinement_parallel_workers": 3,
        "include_video_refinement": False,
        "override_existing_moments": False,
        "override_existing_refinement": False,
    }
    assert await process(site, make_fields(options)) == ""
    ((identifier, video, request),) = await site.runs()
    assert (identifier, video) == ("pipeline:talk:1", "talk")
    assert request | options == request


async def test_names_of_the_frontend_and_of_other_requests_are_understood(site: IntakeSite) -> None:
    config = {
        "model": "minimax",
        "temperature": 0.3,
        "user_prompt": "The best jokes",
        "include_video": False,
        "left_padding": 30,
        "nonsense": [{}],
    }
    assert await process(site, make_fields(config)) == ""
    ((_, _, request),) = await site.runs()
    assert [request[name] for name in ("generation_model", "refinement_model")] == ["minimax", "minimax"]
    assert [request[name] for name in ("generation_temperature", "refinement_temperature")] == [0.3, 0.3]
    assert (request["generation_prompt"], request["include_video_refinement"]) == ("The best jokes", False)


async def test_an_option_overrides_its_former_name(site: IntakeSite) -> None:
    await process(site, make_fields({"generation_prompt": "Now", "user_prompt": "Then"}))
    ((_, _, request),) = await site.runs()
    assert request["generation_prompt"] == "Now"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({b"nothing": b"useful"}, "config is missing"),
        (make_fields(config=" ", video_id="talk"), "config is not valid JSON"),
        (make_fields("{}", video_id=""), "video_id is missing"),
        (make_fields("{}", video_id="unknown"), "Video not found: unknown"),
        (make_fields("{}", video_id="a\0b"), "video_id must not hold the character U+0000"),
        (make_fields("{}", video_id="x" * 256), "video_id must have at most 255 characters"),
        (make_fields("{}") | {b"video_id": b"\xff"}, "video_id must be text in UTF-8"),
        (make_fields("{}") | {b"config": b'{"a": "\xff"}'}, "config must be text in UTF-8"),
        (make_fields("[1, 2]"), "config must be a JSON object"),
        (make_fields('"text"'), "config must be a JSON object"),
        (make_fields("{"), "config is not valid JSON"),
        (make_fields("[" * 100_000 + "]" * 100_000), "config is not valid JSON"),
        (make_fields('{"a":' * 100_000), "config is not valid JSON"),
        (make_fields('{"min_moments": ' + "9" * 5000 + "}"), "config is not valid JSON"),
        (make_fields('{"min_moment_length": NaN}'), "min_moment_length must be more than 0, not NaN"),
        (make_fields({"min_moments": "many"}), 'min_moments must be a whole number, not "many"'),
        (make_fields({"min_moments": True}), "min_moments must be a whole number, not true"),
        (make_fields({"min_moments": 3.5}), "min_moments must be a whole number, not 3.5"),
        (make_fields({"max_moments": 101}), "max_moments must be 100 or less, not 101"),
        (make_fields({"min_moment_length": None}), "min_moment_length must be a number, not null"),
        (make_fields({"max_moment_length": {}}), "max_moment_length must be a number, not a JSON object"),
        (make_fields({"generation_prompt": "a\0b"}), "generation_prompt must not hold the character U+0000"),
        (make_fields({"generation_prompt": "\ud800"}), "generation_prompt must be text that UTF-8 can hold"),
        (make_fields({"user_prompt": 7}), "generation_prompt must be text, not 7"),
        (
            make_fields({"min_moment_length": 200, "max_moment_length": 100}),
            "min_moment_length must not be greater than max_moment_length",
        ),
        (
            make_fields({"generation_model": "gpt"}),
            "Model 'gpt' is not configured; there are: local, minimax, parakeet, qwen, qwen3_omni, qwen3_vl_fp8",
        ),
        (make_fields({"refinement_model": "parakeet"}), "Model 'parakeet' can only transcribe"),
        (make_fields({"force_download": "perhaps"}), 'force_download must be true or false, not "perhaps"'),
        (make_fields({"video_url": "ftp://x/y.mp4"}), "video_url must begin with http://, https:// or gs://"),
        (make_fields({"video_url": "http://[::/y.mp4"}), "video_url cannot be read as an address"),
        (make_fields({"video_url": "http://127.0.0.1/y.mp4"}), NOT_PUBLIC),
        (
            make_fields({"callback_url": "https://cdn.example/"}),
            "callback_url: this server sends no callbacks, because CALLBACK_SECRET is not set",
        ),
        ({b"data": b"not a message"}, "config is missing"),
        (
            {b"data": b'{"task_name": "pipeline.run", "args": ["pipeline:gone:1"]}'},
            "The run that it names is not there",
        ),
        ({b"data": b'{"task_name": "pipeline.run", "args": [["x"]]}'}, "config is missing"),
        ({b"data": b'{"task_name": "other", "args": ["pipeline:gone:1"]}'}, "config is missing"),
    ],
)
async def test_an_invalid_request_is_stored_with_one_sentence(
    site: IntakeSite, fields: Mapping[bytes, bytes], reason: str
) -> None:
    given = (await process(site, fields)).removesuffix(" (of its fields, the first 50 with 10000 bytes each are kept)")
    assert given == reason
    assert await site.runs() == []


async def test_a_request_whose_video_has_a_run_is_rejected_as_over_http(site: IntakeSite) -> None:
    assert await process(site, make_fields()) == ""
    second = make_fields(request_id="pipeline:talk:2")
    assert await process(site, second, "2-0") == "Pipeline already running for video 'talk'"
    await end_run(site, "pipeline:talk:1")
    assert await process(site, second, "2-0") == "Pipeline already running for video 'talk'"  # it stays rejected
    assert await process(site, second, "3-0") == ""
    assert [run for run, _, _ in await site.runs()] == ["pipeline:talk:1", "pipeline:talk:2"]


@pytest.mark.parametrize(
    "request_id",
    ["", "x", "pipeline:other:1", "pipeline:talk:", "pipeline:talk:01", "pipeline:talk:٣", "pipeline:talk:1:2", "\0"],
)
async def test_a_run_whose_request_has_no_identifier_gets_that_of_its_entry(site: IntakeSite, request_id: str) -> None:
    fields = make_fields(request_id=request_id)
    for _ in range(2):
        assert await process(site, fields) == ""
        assert await process(site, fields, "1795346931771-12") == "Pipeline already running for video 'talk'"
    assert [run for run, _, _ in await site.runs()] == ["pipeline:talk:1795346931771000"]


async def test_the_identifier_of_a_long_name_is_cut(site: IntakeSite) -> None:
    name = "a-very-long-name-" * 10
    await site.prepare(name)
    fields = make_fields(video_id=name, request_id=f"pipeline:{name}:1795346931771")
    assert await process(site, fields) == await process(site, fields) == ""
    assert [run for run, _, _ in await site.runs()] == [make_run_identifier(name, 1795346931771)]


@pytest.mark.parametrize("is_ended", [False, True])
async def test_the_same_request_is_accepted_once_whichever_entry_carries_it(site: IntakeSite, is_ended: bool) -> None:
    remember_secret("hunter2-hunter2")
    fields = make_fields({"generation_prompt": "Use hunter2-hunter2", "min_moments": 1})
    assert await process(site, fields) == ""
    if is_ended:
        await end_run(site, "pipeline:talk:1")
    assert await process(site, fields) == await process(site, fields, "5-0") == ""
    assert len(await site.runs()) == len(site.notified) == 1


async def test_another_request_with_the_identifier_of_a_run_is_rejected(site: IntakeSite) -> None:
    assert await process(site, make_fields()) == ""
    assert await process(site, make_fields({"min_moments": 2}), "5-0") == "request_id is that of another run"
    async with site.connect() as conn:
        await make_video(conn, identifier="short")
        await enqueue_run(conn, "short", RunType.AUDIO, RunRequest(), given_identifier=make_run_identifier("short", 1))
    short = make_fields(video_id="short", request_id="pipeline:short:1")
    assert await process(site, short, "6-0") == "request_id is that of another run"


async def test_a_request_whose_run_was_imported_is_acknowledged(site: IntakeSite) -> None:
    async with site.connect() as conn:
        video = await VideoRepository(conn).get_by_identifier("talk")
        assert video is not None
        await make_run(conn, identifier="pipeline:talk:1", video_id=video.id, status="completed")
    assert await process(site, make_fields()) == ""
    assert await site.runs() == []
    assert site.notified == []


async def test_an_entry_of_an_earlier_version_is_acknowledged(site: IntakeSite) -> None:
    await process(site, make_fields())
    message = {
        "task_id": "1f", "task_name": "pipeline.run", "labels": {}, "labels_types": {}, "args": ["pipeline:talk:1"],
        "kwargs": {},
    }  # fmt: skip
    assert await process(site, {b"data": json.dumps(message).encode()}, "9-0") == ""
    assert len(site.notified) == 1


async def test_the_run_for_a_new_url_adds_its_video_under_the_given_name(site: IntakeSite) -> None:
    fields = make_fields(
        {"video_url": URL, "force_download": False}, video_id="my-video", request_id="pipeline:my-video:1"
    )
    assert await process(site, fields) == await process(site, fields) == ""
    ((identifier, video, request),) = await site.runs()
    assert (identifier, video, request["video_url"]) == ("pipeline:my-video:1", "my-video", URL)
    async with site.connect() as conn:
        added = await VideoRepository(conn).get_by_identifier("my-video")
    assert added is not None
    assert added.source_url == URL


@pytest.mark.parametrize("name", ["", "a/b", "talk"])
async def test_the_video_of_a_url_is_called_after_it_where_its_name_cannot_be(site: IntakeSite, name: str) -> None:
    fields = make_fields({"video_url": URL}, video_id=name, request_id=f"pipeline:{name}:1")
    assert await process(site, fields) == await process(site, fields) == ""
    assert [video for _, video, _ in await site.runs()] == ["my-video-file"]


@pytest.mark.parametrize(("force", "count"), [(False, 1), (True, 2)])
async def test_the_video_of_a_known_url_is_used_again_unless_it_is_to_be_downloaded(
    site: IntakeSite, force: bool, count: int
) -> None:
    async with site.connect() as conn:
        for name in ("my-video-file", "my-video-file-1795346931"):
            await make_video(conn, identifier=name, source_url=URL, file_size_kb=1)
    fields = make_fields(
        {"video_url": URL, "force_download": force}, video_id="my-video-file", request_id="pipeline:my-video-file:1"
    )
    assert await process(site, fields) == await process(site, fields) == ""
    ((identifier, video, _),) = await site.runs()
    assert identifier == "pipeline:my-video-file:1"
    assert (video == "my-video-file") is not force
    async with site.connect() as conn:
        assert len(await VideoRepository(conn).list_taken_identifiers("my-video-file")) == 1 + count


async def test_a_rejected_request_adds_no_video(site: IntakeSite) -> None:
    fields = make_fields({"video_url": "http://127.0.0.1/new.mp4"}, video_id="new", request_id="pipeline:new:1")
    assert await process(site, fields) == NOT_PUBLIC
    async with site.connect() as conn:
        assert await VideoRepository(conn).list_taken_identifiers("new") == set()


async def test_no_secret_is_stored(site: IntakeSite, caplog: pytest.LogCaptureFixture) -> None:
    async with site.requests() as requests:
        registry = ModelRegistry(requests._redis)
        await registry.put_model("mine", ModelConfig("Mine", "http://127.0.0.1:9", api_key="swordfish-swordfish"))
    config = {
        "video_url": "http://user:hunter2@127.0.0.1/v.mp4?token=abcdef",
        "generation_prompt": "swordfish-swordfish",
        "api_key": "plain",
    }
    fields = make_fields(config, password="simple", video_id="new")  # noqa: S106  opens nothing
    fields[b"Authorization"] = b"Bearer something-long"
    await process(site, fields)
    (rejected,) = await site.rejected()
    kept = json.dumps(rejected.fields) + rejected.reason + caplog.text
    for secret in ("hunter2", "abcdef", "swordfish-swordfish", "plain", "simple", "something-long"):
        assert secret not in kept
    assert json.loads(rejected.fields["config"])["video_url"].startswith("http://…@127.0.0.1/")


async def test_a_secret_in_a_prompt_is_masked_in_the_run(site: IntakeSite) -> None:
    await process(site, make_fields({"generation_prompt": "Authorization: Bearer abcdefghijklmnop"}))
    ((_, _, request),) = await site.runs()
    assert "abcdefghijklmnop" not in request["generation_prompt"]


def _recording_lengths(lengths: list[int]) -> Callable[[str | bytes], Any]:
    """`json.loads` that notes the lengths of what it reads."""
    loads = json.loads

    def read(text: str | bytes) -> Any:
        lengths.append(len(text))
        return loads(text)

    return read


async def test_a_huge_config_is_rejected_unread_and_stored_in_part(
    site: IntakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**make_fields(), b"config": b'{"generation_prompt": "' + b"x" * 50_000_000 + b'"}'}
    read: list[int] = []
    monkeypatch.setattr("app.services.intake.json.loads", _recording_lengths(read))
    reason = await process(site, fields)
    monkeypatch.undo()
    assert max(read, default=0) < 50_000_000
    assert reason == (
        "config must have at most 1048576 bytes (of its fields, the first 50 with 10000 bytes each are kept)"
    )
    (rejected,) = await site.rejected()
    assert len(rejected.fields["config"]) == 10_000
    assert await process(site, fields) == reason
    assert len(await site.rejected()) == 1


async def test_an_entry_of_many_fields_is_stored_in_part(site: IntakeSite) -> None:
    fields = {b"%d" % number: b"x" for number in range(10_000)}
    assert (await process(site, fields)).startswith("config is missing (of its fields, the first 50 with ")
    (rejected,) = await site.rejected()
    assert len(rejected.fields) == 50


async def test_invalid_text_is_stored_escaped(site: IntakeSite) -> None:
    fields = {b"video_id": b"caf\xe9", b"config": "{é}\0".encode(), b"\xff\0": b'"\\ud800"'}
    await process(site, fields)
    (rejected,) = await site.rejected()
    assert rejected.fields == {"video_id": "caf\\xe9", "config": "{é}\\x00", "\\xff\\x00": '"\\ud800"'}


async def test_entries_with_the_same_id_are_all_stored(site: IntakeSite) -> None:
    for text in ("a", "b", "a", "b"):
        await process(site, {b"video_id": text.encode()}, "1-1")
    rejected = await site.rejected()
    assert [each.fields["video_id"] for each in rejected] == ["a", "b"]
    assert rejected[0].entry_id == "1-1"
    assert re.fullmatch("1-1 [0-9a-f]{8}", rejected[1].entry_id)


async def test_an_entry_with_the_longest_id_is_stored(site: IntakeSite) -> None:
    entry_id = f"{2**64 - 1}-{2**64 - 1}"
    for text in (b"a", b"b"):
        await process(site, {b"video_id": text}, entry_id)
    assert len(await site.rejected()) == 2
    assert await process(site, make_fields(request_id=""), entry_id.replace("1", "0")) == ""


async def test_a_defect_rejects_the_request_and_nothing_else(
    site: IntakeSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*args: object, **options: object) -> str:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("app.services.intake.enqueue_run", fail)
        assert await process(site, make_fields()) == "The server failed at this request, its log has the reason"
    assert "ZeroDivisionError" in caplog.text
    assert await process(site, make_fields(), "2-0") == ""


_BYTES = st.binary(max_size=40) | st.sampled_from(
    [b"", b"\0", b"talk", b"{}", b'{"video_url": "http://127.0.0.1/b.mp4"}', b"null"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from(
    ["model", "generation_model", "temperature", "min_moments", "max_moment_length", "video_url", "force_download",
     "generation_prompt", "user_prompt", "callback_url", "include_video", "override_existing_moments", "x"]
)  # fmt: skip
_CONFIG = st.dictionaries(_NAMES, _JSON, max_size=5).map(lambda values: json.dumps(values).encode())
_FIELDS = st.dictionaries(
    st.sampled_from([b"request_id", b"video_id", b"config", b"requested_at", b"data", b"\xff"]) | st.binary(max_size=5),
    _BYTES | _CONFIG,
    min_size=1,
    max_size=6,
)


@given(_FIELDS)
def test_any_fields_can_be_stored(fields: dict[bytes, bytes]) -> None:
    kept = RejectedStreamEntry.from_entry_with_masked_fields(ENTRY, fields)
    for text in (*kept.fields, *kept.fields.values()):
        assert "\0" not in text
        assert is_utf8(text)


async def test_any_entry_becomes_a_run_or_is_stored_as_rejected(site: IntakeSite) -> None:
    examples: list[dict[bytes, bytes]] = []

    @settings(max_examples=150, database=None)
    @given(_FIELDS)
    def collect(fields: dict[bytes, bytes]) -> None:
        examples.append(fields)

    collect()
    async with site.requests() as requests:
        for number, fields in enumerate(examples, 1):
            for _ in range(2):
                await requests.enqueue_or_reject(f"{number}-0", fields)
    rejected = await site.rejected()
    assert len(rejected) + len(await site.runs()) == len(examples)
    assert all(each.reason and "\n" not in each.reason for each in rejected)


async def test_requests_for_the_same_video_at_once_are_one_run(site: IntakeSite) -> None:
    async def ask(number: int) -> None:
        async with site.requests() as requests:
            await requests.enqueue_or_reject(f"{number}-0", make_fields(request_id=f"pipeline:talk:{number}"))

    await asyncio.gather(*(ask(number) for number in range(1, 9)))
    assert len(await site.runs()) == 1
    assert {each.reason for each in await site.rejected()} == {"Pipeline already running for video 'talk'"}
    assert len(await site.rejected()) == 7


async def test_the_previous_backends_entry_is_settled_without_a_stream(site: IntakeSite) -> None:
    await site.prepare("demo-talk")
    assert await process(site, PREVIOUS) == ""
    ((identifier, _, request),) = await site.runs()
    assert identifier == "pipeline:demo-talk:1795346931771"
    assert request["max_moments"] == 12
