"""Accessibility checks of HTML pages: screen readers, keyboards and narrow screens."""

import re
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img", "br", "input", "hr", "source"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.open: list[tuple[str, dict[str, Any]]] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids += [found["id"]] if found.get("id") else []
        self.references += [found[name] for name in ("aria-labelledby", "for") if found.get(name)]
        if tag == "audio" and not found.get("aria-label"):
            self.problems.append("a player has no label")
        if tag == "img" and not found.get("alt"):
            self.problems.append("an image has no text")
        if tag == "th" and found.get("scope") not in ("col", "row", "colgroup", "rowgroup"):
            self.problems.append("a table header has no scope")
        if tag == "table" and not any("scroll" in str(parent.get("class")) for _, parent in self.open):
            self.problems.append("a table cannot scroll on a narrow screen")
        if "scroll" in str(found.get("class")).split() and found.get("tabindex") != "0":
            self.problems.append("a scrolling area cannot be focused")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append((tag, found))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass


def problems(page: str) -> list[str]:
    """Returns the accessibility problems of a page."""
    parser = _Page()
    parser.feed(page)
    found = list(parser.problems)
    if not re.search(r'<html lang="\w+"', page):
        found.append("the page has no language")
    if "width=device-width" not in page:
        found.append("the page does not fit the width of a screen")
    if "prefers-color-scheme: dark" not in page:
        found.append("there is no dark mode")
    if not parser.headings or parser.headings[0] != 1 or parser.headings.count(1) != 1:
        found.append("the page does not begin with its only main heading")
    if any(after - before > 1 for before, after in zip(parser.headings, parser.headings[1:], strict=False)):
        found.append("a level of headings is left out")
    if "<main" not in page:
        found.append("there is no main part")
    found += [f"{name} is the id of nothing" for name in parser.references if name not in parser.ids]
    found += [f"{name} is the id of several elements" for name in set(parser.ids) if parser.ids.count(name) > 1]
    if re.search(r'(src|href)="(https?:)?//', page):
        found.append("the page loads something from elsewhere")
    return found
