"""Checks a folder of HTML pages: they need no network, and no link leads nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes that make a browser fetch something as soon as the page opens, unlike a link.
FETCHED = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
}
NOT_FETCHED = {"canonical", "next", "prev", "author", "search", "index", "license"}
CSS_URL = re.compile(r"url\(\s*['\"]?(https?:)?//|@import\s+['\"](https?:)?//")
JS_URL = re.compile(r"""(?:import\s*\(?\s*|from\s+|\.src\s*=\s*)['"`](?:https?:)?//""")


class Page(HTMLParser):
    """What one page fetches, what it links to, and which ids in it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched, self.links, self.ids, self.inline = [], [], set(), []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids |= {found.get("id"), found.get("name")}
        self.inside = tag if tag in ("script", "style") else ""
        for name, value in found.items():
            if value is None or (
                tag == "link" and NOT_FETCHED & set((found.get("rel") or "").split())
            ):
                continue
            if (tag, name) in FETCHED:
                self.fetched.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


def problems(folder: Path) -> list[str]:
    """Requests to other servers, and links to files and headings that are not there."""
    pages = {
        path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))
    }
    if not pages:
        return [f"there are no pages in {folder}"]
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        found += [f"{name}: {what}" for what in _of_page(path, page, pages)]
    for path in sorted(folder.rglob("*.css")):
        if CSS_URL.search(path.read_text(encoding="utf-8")):
            found.append(f"{path.relative_to(folder)}: asks another server")
    return found


def _of_page(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for text in page.inline:
        if CSS_URL.search(text) or JS_URL.search(text):
            yield f"asks another server, in a script or style: {text.strip()[:80]!r}"
    for target in page.fetched:
        if urlsplit(target).scheme not in ("", "data") or target.startswith("//"):
            yield f"asks another server: {target[:80]}"
    for target in [*page.fetched, *page.links]:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not file.exists():
            yield f"names a file that is not there: {target}"
        elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids:
            yield f"names a heading that is not there: {target}"
