"""Makes the pages of Great Expectations readable without the internet.

The pages load their style, icons and tables from a dozen outside addresses. Behind a hospital's firewall they have
no style and the index is empty. Here every outside reference is removed, a style sheet is put inside each page,
icons become words, and the index becomes a plain table.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

_REPLACEMENTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<style\b.*?</style>", re.DOTALL), ""),
    (re.compile(r"<script\b.*?</script>", re.DOTALL), ""),
    (re.compile(r"<link\b[^>]*>"), ""),
    (re.compile(r"<title>\s*</title>"), ""),
    (re.compile(r"<footer\b.*?</footer>", re.DOTALL), ""),
    (re.compile(r"<a[^>]*>\s*<img\b[^>]*alt=\"Great Expectations\"[^>]*>\s*</a>", re.DOTALL), ""),
    # The filter buttons and folding links need scripts: all rows are shown instead.
    (re.compile(r"<div class=\"card mb-3\">\s*<div class=\"card-header p-2\">\s*<strong>Actions.*?"
                r"(?=<div class=\"card d-md|</div>\s*<div class=\"col-md-10)", re.DOTALL), ""),
    (re.compile(r"<p class=\"m-0\">\s*<a data-toggle=\"collapse\".*?</a>\s*</p>", re.DOTALL), ""),
    (re.compile(r"<br> Data asset: None"), ""),
    (re.compile(r"<i class=\"[^\"]*fa-check-circle[^>]*>\s*</i>"), '<b class="ok">&#10003; holds</b>'),
    (re.compile(r"<i class=\"[^\"]*fa-times[^>]*>\s*</i>\s*Failed"), '<b class="no">&#10007; broken</b>'),
    (re.compile(r"<i class=\"[^\"]*fa-times[^>]*>\s*</i>"), '<b class="no">&#10007; broken</b>'),
    (re.compile(r"<i class=\"[^\"]*fa-exclamation[^>]*>\s*</i>"), '<b class="no">&#9888; error</b>'),
    (re.compile(r"</b>\s*Succeeded"), "</b>"),
)  # fmt: skip


def make_self_contained(docs: Path, counts: Mapping[str, tuple[int, int]]) -> None:
    """Rewrite the pages so that they load nothing from outside, and write a plain index.

    Args:
        docs: folder with the pages as Great Expectations built them.
        counts: name of each validated table to (rules that hold, rules checked).
    """
    style = f"<style>{_environment().get_template('data_docs.css').render()}</style></head>"
    for page in sorted(docs.rglob("*.html")):
        html = page.read_text(encoding="utf-8")
        for pattern, replacement in _REPLACEMENTS:
            html = pattern.sub(replacement, html)
        page.write_text(html.replace("</head>", style, 1), encoding="utf-8")
    # No page refers any more to these fonts, logos and animations.
    shutil.rmtree(docs / "static", ignore_errors=True)
    rows = [
        {
            "name": name.replace("_", " "),
            "passed": passed,
            "checked": checked,
            "result": next(page.relative_to(docs).as_posix() for page in docs.glob(f"validations/{name}/**/*.html")),
            "suite": f"expectations/{name}.html",
        }
        for name, (passed, checked) in counts.items()
    ]
    index = _environment().get_template("data_docs_index.html").render(rows=rows)
    (docs / "index.html").write_text(index, encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cxr.data.checks"), autoescape=select_autoescape(["html"]), trim_blocks=True
    )
