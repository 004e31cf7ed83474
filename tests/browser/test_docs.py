"""`/docs` and `/redoc` in a real browser that reaches no host but this server."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Route

from tests.browser.chromium import needs_chromium
from tests.conftest import Databases
from tests.serving import ServerProcess, serving

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, template_url: str, redis_url: str
) -> Iterator[ServerProcess]:
    folder, database_url = tmp_path_factory.mktemp("docs"), databases.create(template_url)
    with serving(folder, database_url=database_url, redis_url=redis_url, storage_url=folder.as_uri()) as server:
        yield server


@pytest.fixture
def cut_off() -> list[str]:
    """The addresses on other hosts that a page has asked for."""
    return []


@pytest.fixture
async def page(browser: Browser, cut_off: list[str]) -> Page:
    """A page for which the internet is cut."""

    async def cut(route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            await route.continue_()
        else:
            cut_off.append(route.request.url)
            await route.abort("internetdisconnected")

    page = await browser.new_page()
    await page.route("**/*", cut)
    return page


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_shows_the_routes_without_the_internet(
    page: Page, server: ServerProcess, cut_off: list[str], path: str
) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    await page.goto(server.url + path)
    for text in ("/api/search", "/api/videos/{video_id}/moments"):
        await page.get_by_text(text, exact=True).first.wait_for(state="attached", timeout=20_000)
    assert cut_off == []
    # Redoc asks a CDN for its logo, and the policy of the page lets it ask nobody.
    assert [each for each in problems if "https://cdn.redoc.ly/" not in each] == []


async def test_the_documentation_sends_requests_that_change_something(page: Page, server: ServerProcess) -> None:
    await page.goto(f"{server.url}/docs#/models/seed_models")
    await page.get_by_role("button", name="Try it out").click()
    async with page.expect_response("**/api/admin/models/seed") as sent:
        await page.get_by_role("button", name="Execute").click()
    assert (await (await sent.value).json()).keys() == {"seeded_count", "message"}
    assert (await sent.value).status == 200
