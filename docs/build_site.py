"""Build the documentation as a site: `make site`.

The pages are the documents of the repository, in their places, so that a link works on GitHub and on the site. Exit
status 1: a document is missing in `nav` of mkdocs.yml, a link leads nowhere, or Zensical warns. An older site stays.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = ("*.md", "docs/**/*.md", "docs/*.ipynb", "components/*.md", "mlflow/*.md", "infra/**/*.md")
ASSETS = ("docs/*.jpeg", "docs/*.css")
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WARNING = re.compile(r"Warning: (.+)\n.*\[ (\S+) \]")
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)


class SiteError(Exception):
    """The site cannot be built from the documents as they are."""


def main(words: list[str] | None = None) -> int:
    """Build the site.

    Args:
        words: the command line; None takes the program's own.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="folder with mkdocs.yml and the documents")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "site", help="folder to write")
    options = parser.parse_args(words)
    repository, output = options.repository.resolve(), options.output.resolve()
    try:
        build(repository, output)
    except SiteError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"site: {output / 'index.html'}\n")
    return 0


def build(repository: Path, output: Path) -> None:
    """Build the site of a repository, and replace an older one.

    Args:
        repository: folder with mkdocs.yml and the documents.
        output: folder to write.

    Raises:
        SiteError: a document, a link or the build is not in order, or `output` is something else than a site.
    """
    if output.exists() and not (output / "search.json").is_file():
        raise SiteError(
            f"expected no folder, or an older site to replace, received output={output}: choose another --output"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".site-") as name:
        folder = Path(name)
        settings = (repository / "mkdocs.yml").read_text(encoding="utf-8")
        (folder / "mkdocs.yml").write_text(settings.replace(".ipynb", ".md"), encoding="utf-8")
        copy_pages(repository, folder / "pages")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "mkdocs.yml"]
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if answer.returncode:
            raise SiteError(_warnings(answer.stdout + answer.stderr.partition("Traceback")[0]))
        shutil.rmtree(output, ignore_errors=True)
        (folder / "site").rename(output)


def copy_pages(repository: Path, folder: Path) -> None:
    """Copy the documents, as pages of the site, and what they show.

    Args:
        repository: folder with mkdocs.yml and the documents.
        folder: where each file gets the place that it has in the repository.

    Raises:
        SiteError: a document is missing in `nav`, or a link leads nowhere.
    """
    navigation = yaml.safe_load((repository / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = {path for pattern in _entries(navigation) for path in repository.glob(pattern)}
    documents = {path.relative_to(repository) for pattern in DOCUMENTS for path in repository.glob(pattern)}
    names = ", ".join(
        str(path)
        for path in sorted(documents)
        if repository / path not in pages and not any(part.startswith(".") for part in path.parts)
    )
    if names:
        raise SiteError(f"expected all documents in nav of mkdocs.yml, received none of {names}: add them")
    assets = {path for pattern in ASSETS for path in repository.glob(pattern)}
    for path in sorted(pages | assets):
        copy = folder / path.relative_to(repository)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path in assets:
            shutil.copyfile(path, copy)
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            text = notebook_page(json.loads(text))
        text = _with_links_of_the_site(text, path, repository, pages | assets)
        copy.with_suffix(".md").write_text(text, encoding="utf-8")


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown: its texts, and its code in blocks.

    Args:
        notebook: the notebook, as its file holds it.

    Returns:
        The page.
    """
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    return "\n\n".join(parts) + "\n"


def _warnings(output: str) -> str:
    """Return one line for each warning of Zensical, which draws them in colours, or all of its output."""
    plain = COLOUR.sub("", output)
    return "\n".join(f"{place}: {text}" for text, place in WARNING.findall(plain)) or plain


def _entries(navigation: Any) -> Iterator[str]:
    """Yield the paths of a `nav`, which nests lists and mappings."""
    if isinstance(navigation, str):
        yield navigation
    else:
        for entry in navigation.values() if isinstance(navigation, dict) else navigation:
            yield from _entries(entry)


def _with_links_of_the_site(text: str, document: Path, repository: Path, files: set[Path]) -> str:
    """Return a document whose links stay inside of the site; a link to a file that is no page becomes its text."""

    def replace(link: re.Match[str]) -> str:
        target = (document.parent / link["target"]).resolve()
        if not target.exists():
            name = document.relative_to(repository)
            raise SiteError(
                f"{name}: expected a file of the repository, received link={link['target']}: correct the link"
            )
        page = target / "README.md" if target.is_dir() else target
        if page not in files:
            return link["text"]
        path = link["target"].rstrip("/") + ("/README.md" if target.is_dir() else "")
        return f"{link['image']}[{link['text']}]({path.replace('.ipynb', '.md')}{link['anchor'] or ''})"

    parts = FENCED.split(text)
    return "".join(part if n % 2 else LINK.sub(replace, part) for n, part in enumerate(parts))


if __name__ == "__main__":
    sys.exit(main())
