"""A page as a browser reads it: whether its elements close, and whether anything that was written became an element."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = frozenset(("br", "col", "hr", "img", "input", "link", "meta", "wbr"))
KNOWN = VOID | frozenset(
    (
        *("html", "head", "title", "script", "body", "header", "nav", "main", "footer", "section", "article", "div"),
        *("h1", "h2", "h3", "p", "ul", "ol", "li", "dl", "dt", "dd", "a", "span", "strong", "code", "pre", "time"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary"),
        *("form", "label", "select", "option", "button"),
        *("svg", "desc", "rect", "line", "polyline", "polygon", "circle", "text"),
    )
)
"""Elements that the templates have; a name of a peer must not add another one."""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if tag not in KNOWN:
            self.faults.append(f"<{tag}> is none of ours")
        if len(set(names)) < len(names):
            self.faults.append(f"<{tag}> has an attribute twice")
        if "style" in names or any(name.startswith("on") for name in names):
            self.faults.append(f"<{tag}> has a style or a handler, which the policy forbids")
        identifier = dict(attrs).get("id")
        if identifier is not None and identifier in self.ids:
            self.faults.append(f"two elements have the id {identifier}")
        self.ids.add(identifier or "")
        if tag == "script" and not dict(attrs).get("src"):
            self.faults.append("inline script")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def faults(text: str) -> list[str]:
    """What is wrong with a page; nothing where all is well."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.faults + [f"<{tag}> is never closed" for tag in reader.open]


def texts(text: str) -> str:
    """What stands on a page, without its elements."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return " ".join(" ".join(reader.texts).split())
