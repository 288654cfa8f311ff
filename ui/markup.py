"""Small pieces of HTML, all pure: everything that comes from outside is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlsplit

from ui import words


def text(value: Any) -> str:
    """Any value as text that cannot be markup."""
    return escape(str(value), quote=True)


def link(href: str, label: str) -> str:
    """A link if `href` is http(s), otherwise the label alone."""
    if urlsplit(href).scheme not in ("http", "https"):
        return text(label)
    return f'<a href="{text(href)}" target="_blank" rel="noopener noreferrer">{text(label)}</a>'


def brand(title: str, subtitle: str) -> str:
    """The name of the twin."""
    return f'<div class="brand"><h1>{text(title)}</h1><p>{text(subtitle)}</p></div>'


def section(title: str) -> str:
    """Heading of a part of the page."""
    return f'<h3 class="section">{text(title)}</h3>'


def heading(title: str, when: str, badges: Sequence[words.Badge], sentence: str, notes: Iterable[str]) -> str:
    """The head of the page: region, day, badges, the sentence that matters, and how old it all is."""
    marks = "".join(f'<span class="badge">{text(b.label)}</span>' for b in badges)
    meanings = " ".join(b.meaning for b in badges)
    return (
        f'<div class="head"><div><h2>{text(title)} <span class="when">{text(when)}</span></h2>'
        f'<p class="sentence">{text(sentence)}</p></div>'
        f'<div class="about"><p class="badges">{marks}</p><p>{text(meanings)}</p>'
        f"<p>{text(' '.join(note for note in notes if note))}</p></div></div>"
    )


def origin(href: str, snapshot: str) -> str:
    """Where what is shown can be had: the published item and the snapshot."""
    item = f"{link(href, words.PUBLISHED)} · " if href else ""
    return f'<p class="origin">{item}{text(snapshot)}</p>'


def notices(messages: Sequence[str]) -> str:
    """What is wrong at the moment; an empty element when nothing is, so that a screen reader hears what comes."""
    return '<div class="notices" role="status">' + "".join(f"<p>{text(m)}</p>" for m in messages) + "</div>"


def counters(values: Sequence[tuple[str, str]]) -> str:
    """Numbers with their names."""
    pairs = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for value, name in values)
    return f'<dl class="counters">{pairs}</dl>'


def events(rows: Sequence[Mapping[str, Any]]) -> str:
    """The latest events, newest first: what, when, and the items they came from.

    rows: text, time, sources (item ids), href (of the published item, '' for none), refused (bool)
    """
    return _list(words.NO_EVENTS, [_event(row) for row in rows])


def _event(row: Mapping[str, Any]) -> str:
    sources = row["sources"]
    made = f"<div>{text(words.made_from(words.listed(sources)))}</div>" if sources else ""
    if len(sources) > 3:
        title = text(words.made_from(words.counted(len(sources), "item")))
        made = f"<details><summary>{title}</summary>{text(', '.join(sources))}</details>"
    published = link(row["href"], words.PUBLISHED) if row["href"] else ""
    about = " · ".join(filter(None, (f"<time>{text(row['time'])}</time>", published)))
    kind = ' class="refused"' if row["refused"] else ""
    return f"<li{kind}><strong>{text(row['text'])}</strong><span>{about}</span>{made}</li>"


def quarantine(records: Sequence[Mapping[str, Any]]) -> str:
    """Items set aside, each with its reason."""
    rows = [
        f'<li class="refused"><strong>{text(r.get("id") or words.name(r.get("key", "")))}</strong>'
        f"<span>{text(words.refusal(r.get('kind', '')))}</span><div>{text(r.get('reason', ''))}</div></li>"
        for r in records
    ]
    return _list(words.NO_QUARANTINE, rows)


def _list(empty: str, rows: Sequence[str]) -> str:
    return f'<ul class="list" tabindex="0">{"".join(rows)}</ul>' if rows else f'<p class="empty">{text(empty)}</p>'


def place(name: str, where: str, color: str, status: str, sentence: str, notes: Iterable[str]) -> str:
    """The head of the place panel."""
    more = "".join(f"<p>{text(note)}</p>" for note in notes if note)
    swatch = f'<i style="background:{text(color)}"></i>' if color else '<i class="missing"></i>'
    called = f"{text(name)} <span>{text(where)}</span>" if name else text(where)
    return (
        f'<div class="place"><h3>{called}</h3><p class="sentence">{text(sentence)}</p>'
        f'<p class="status">{swatch}{text(status)}</p>{more}</div>'
    )


def key(rows: Sequence[Mapping[str, str]]) -> str:
    """The key of the chart."""
    mark = '<li><i class="{}" style="--c:{}"></i>{}</li>'
    items = "".join(mark.format(text(row["mark"]), text(row["color"]), text(row["name"])) for row in rows)
    return f'<ul class="key">{items}</ul>'


def paragraphs(*texts: str) -> str:
    """Plain paragraphs."""
    return '<div class="prose">' + "".join(f"<p>{text(t)}</p>" for t in texts if t) + "</div>"
