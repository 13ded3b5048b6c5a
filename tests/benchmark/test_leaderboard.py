"""The site of bundles: what counts, what is listed with its reason, and that its pages work in a browser."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmark.commands.site import make_site
from sra.common.errors import UserError
from tests.benchmark.test_bundle import rehashed, rewritten, scores_of

BUNDLES = Path(__file__).parents[1] / "fixtures"
PROVED, UNPROVED = BUNDLES / "bundle-features-schema1.zip", BUNDLES / "bundle-schema1.zip"


class Links(HTMLParser):
    """The addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def states(page: Path) -> list[str]:
    return re.findall(r'<tr data-state="([^"]+)">', page.read_text())


def copied(folder: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    folder.mkdir()
    bundle = folder / "own.zip"
    shutil.copyfile(PROVED, bundle)

    def consistent(members: dict[str, bytes]) -> None:
        change(members)
        rehashed(members)

    return rewritten(bundle, consistent)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    damaged = folder / "<b>damaged.zip"
    damaged.write_bytes(PROVED.read_bytes()[:5000])
    newer = folder / "newer.zip"

    def other_schema(members: dict[str, bytes]) -> None:
        members["bundle.json"] = json.dumps({**json.loads(members["bundle.json"]), "schema": 99}).encode()

    shutil.copyfile(PROVED, newer)
    newer = rewritten(newer, other_schema).rename(newer)
    text = make_site([PROVED, UNPROVED, damaged, newer, PROVED], folder / "out")
    assert "5 bundles (1 verified, 1 not proved, 2 does not verify, 1 given twice), 2 reproductions" in text
    return folder / "out"


def test_only_what_is_proved_counts(site: Path) -> None:
    index = (site / "index.html").read_text()
    assert states(site / "index.html") == ["counts"] * 2 + ["does not count"] * 4
    assert "schema: expected 1, got 99" in index
    assert "<b>damaged" not in index
    assert "&lt;b&gt;damaged" in index


def test_a_page_for_every_published_row(site: Path) -> None:
    assert {path.stem for path in (site / "rows").iterdir()} == {"sit-b2-256-400k", "sit-b2-sra-256-400k"}
    assert states(site / "rows" / "sit-b2-256-400k.html") == ["counts"]


def test_the_rows_as_data_are_those_of_the_page(site: Path) -> None:
    rows = json.loads((site / "reproductions.json").read_text())
    assert [row["counts"] for row in rows] == [True] * 2 + [False] * 4
    assert rows[0]["published"] == "sit-b2-256-400k"
    assert rows[0]["fid"] == pytest.approx(88.218149)
    for row in rows:
        page, _, anchor = row["page"].partition("#")
        assert f'id="{anchor}"' in (site / page).read_text()


def test_every_link_leads_somewhere(site: Path) -> None:
    for page in site.rglob("index.html"):
        for address in Links(page).found:
            place, _, anchor = address.partition("#")
            if not address.startswith(("http", "data:")):
                assert (page.parent / place).is_file(), (page, address)
                assert not anchor or f'id="{anchor}"' in (page.parent / place).read_text(), (page, address)


def test_the_same_samples_count_once(tmp_path: Path) -> None:
    again = copied(tmp_path / "again", lambda members: members.update({"run/stages/note.txt": b"another"}))
    assert make_site([PROVED, again], tmp_path / "out").endswith("2 bundles (2 verified), 2 reproductions")
    assert (tmp_path / "out" / "index.html").read_text().count("same samples as") == 2


def test_a_bundle_that_claims_more_than_its_statistics_show_counts_nowhere(tmp_path: Path) -> None:
    def better(members: dict[str, bytes]) -> None:
        name = scores_of(members, "sra")
        scores = json.loads(members[name])
        scores["metrics"]["fid"] = 1.0
        members[name] = json.dumps(scores).encode()

    forged = copied(tmp_path / "forged", better)
    assert make_site([forged], tmp_path / "out").endswith("1 bundles (1 does not verify), 0 reproductions")


def test_without_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="site: expected"):
        make_site([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, site: Path) -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("needs chromium")
    arguments = ["--no-sandbox", "--disable-background-networking"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=arguments)
        opened = browser.new_page(viewport={"width": request.param, "height": 800})
        messages: list[str] = []
        opened.on("console", lambda message: messages.append(message.text))
        opened.on("pageerror", lambda error: messages.append(str(error)))
        opened.goto((site / "index.html").as_uri())
        yield opened
        assert not messages
        browser.close()


@pytest.mark.browser
def test_sorting_and_filters(page) -> None:
    assert page.locator("#shown").inner_text() == "6 of 6"
    page.select_option("#state", "counts")
    assert page.locator("tbody tr:visible").count() >= 2
    assert page.locator("#shown").inner_text() == "2 of 6"
    page.select_option("#state", "")
    page.fill("#text", "SEED1")
    assert page.locator("#shown").inner_text() == "2 of 6"
    shared = page.context.browser.new_page()
    shared.goto(page.url)
    assert shared.input_value("#text") == "SEED1"
    assert shared.locator("#shown").inner_text() == "2 of 6"
    page.fill("#text", "")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if page.viewport_size["width"] < 640:
        return  # cards without a head to sort by
    for direction in (1, -1):
        page.get_by_role("button", name="FID").first.click()
        shown = page.locator("table.sortable tbody tr td:nth-child(5)").evaluate_all(
            "cells => cells.map(cell => +cell.dataset.value)"
        )
        assert shown == sorted(shown, reverse=direction < 0)
    shared.goto(page.url)
    assert shared.locator("table.sortable th[aria-sort=descending]").inner_text().startswith("FID")
    assert shared.locator("tbody").first.inner_text() == page.locator("tbody").first.inner_text()


@pytest.mark.browser
def test_a_report_opens_and_its_command_is_copied(page) -> None:
    page.locator("table.sortable a", has_text="baseline").first.click()
    assert page.url.endswith("report.html#baseline")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".commands button").last.click()
    assert page.locator(".commands button").last.inner_text() == "copied"
