"""The documentation builds as a site without warnings, its links lead somewhere, and it needs no other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

MARK = re.compile(r"\s*(\d\.|[-*]|```|\|) ?\S")
CODE = ("pre", "code", "script", "style")


class Links(HTMLParser):
    """Addresses that a page links to, those that it loads, the anchors that it has, and its sentences."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.lines: list[str] = []
        self.paragraphs = self.code = 0
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.code += tag in CODE
        self.paragraphs += tag == "p"
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        address = values.get("href") or values.get("src")
        if address and tag in ("script", "link", "img"):
            self.loaded.append(address)
        elif address and tag == "a":
            self.targets.append(address)

    def handle_endtag(self, tag: str) -> None:
        self.code -= tag in CODE
        self.paragraphs -= tag == "p"

    def handle_data(self, data: str) -> None:
        if self.paragraphs and not self.code:
            self.lines += data.splitlines()


def build(repository: Path, output: Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[2] / "docs" / "build_site.py"
    words = [sys.executable, script, "--repository", repository, "--output", output]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Links]:
    """The pages of the site."""
    folder = tmp_path_factory.mktemp("site") / "site"
    answer = build(repository, folder)
    assert answer.returncode == 0, answer.stderr
    return {page: Links(page) for page in folder.rglob("*.html") if page.name != "404.html"}


@pytest.fixture
def documents(repository: Path, tmp_path: Path) -> Path:
    """The documents alone, to change them."""
    folder = tmp_path / "repository"
    for pattern in ("*.md", "mkdocs.yml", "docs/**/*", "components/*.md", "mlflow/*.md", "infra/**/*.md"):
        for path in repository.glob(pattern):
            if path.is_file():
                copy = folder / path.relative_to(repository)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    return folder


def test_links_of_all_pages_lead_to_a_page_and_its_heading(site: dict[Path, Links]) -> None:
    count = 0
    for page, links in site.items():
        for address in links.targets:
            parts = urlsplit(address)
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page.name}: {address}"
            if parts.fragment and target in site:
                assert unquote(parts.fragment) in site[target].anchors, f"{page.name}: {address}"
            count += 1
    assert count > 1000


def test_marks_of_lists_and_code_became_lists_and_code(site: dict[Path, Links]) -> None:
    # GitHub takes blocks of a list that are indented by two or three spaces, the site needs four.
    unread = [f"{page.name}: {line}" for page, links in site.items() for line in links.lines if MARK.match(line)]
    assert not unread


def test_pages_load_nothing_from_other_hosts(site: dict[Path, Links]) -> None:
    loaded = {address for links in site.values() for address in links.loaded}
    assert any(address.endswith(".js") for address in loaded)
    assert not [address for address in loaded if urlsplit(address).netloc]


def test_every_document_is_a_page_and_the_readme_is_the_first(site: dict[Path, Links], repository: Path) -> None:
    root = min(site, key=lambda page: len(page.parts)).parent
    pages = {str(page.relative_to(root)) for page in site}
    decisions = {f"docs/decisions/{path.stem}.html" for path in repository.glob("docs/decisions/0*.md")}
    assert decisions | {"docs/guide.html", "docs/walkthrough.html", "CHANGELOG.html", "mlflow/index.html"} <= pages
    title = re.search(r"^# (.+)$", (repository / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert title and title[1] in (root / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n[a page](nowhere.md)\n", "docs/guide.md: expected a file of the repository, received link=nowhere.md"),
        ("\n[a heading](glossary.md#nowhere)\n", "anchor does not exist"),
    ],
)
def test_a_broken_link_stops_the_build_and_an_older_site_stays(documents: Path, text: str, message: str) -> None:
    older = documents / "site"
    older.mkdir()
    (older / "search.json").write_text("{}")
    with (documents / "docs" / "guide.md").open("a", encoding="utf-8") as file:
        file.write(text)
    answer = build(documents, older)
    assert answer.returncode == 1
    assert message in answer.stderr
    assert [path.name for path in older.iterdir()] == ["search.json"]
    assert not list(documents.glob(".site-*"))


def test_a_document_that_the_site_does_not_list_stops_the_build(documents: Path) -> None:
    (documents / "docs" / "new.md").write_text("# New\n")
    answer = build(documents, documents / "site")
    assert answer.returncode == 1
    assert "received none of docs/new.md" in answer.stderr


def test_a_folder_that_is_no_site_is_never_replaced(documents: Path) -> None:
    answer = build(documents, documents / "docs")
    assert answer.returncode == 1
    assert (documents / "docs" / "guide.md").is_file()
