"""Sections of text, pictures and clips as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Section:
    """One part of the page.

    Attributes:
        title: its heading.
        command: makes it alone; several, one a line.
        text: Markdown, tables and all.
        pictures: PNG files.
        clips: animated WebP, with what each shows.
        failed: why there is nothing else; None = there is.
    """

    title: str
    command: str
    text: str = ""
    pictures: list[Path] = field(default_factory=list)
    clips: list[tuple[bytes, str]] = field(default_factory=list)
    failed: str | None = None


def page(title: str, sections: Sequence[Section], facts: Mapping[str, str], again: str) -> str:
    """Return sections as one HTML page, pictures and clips inside it."""
    from markdown import markdown as as_html

    parts = [f"<h1>{html.escape(title)}</h1>", "<nav>"]
    parts += [f'<a href="#s{n}">{html.escape(section.title)}</a>' for n, section in enumerate(sections)]
    parts.append("</nav>")
    for number, section in enumerate(sections):
        parts.append(f'<section id="s{number}"><h2>{html.escape(section.title)}</h2>')
        if section.failed is not None:
            parts.append(f'<p class="failed">Not measured: {html.escape(section.failed)}</p>')
        parts.append(f'<div class="wide">{as_html(section.text, extensions=["tables"])}</div>')
        if section.clips:
            shown = (_figure("webp", clip, caption) for clip, caption in section.clips)
            parts.append(f'<div class="clips">{"".join(shown)}</div>')
        parts += [_figure("png", picture.read_bytes(), "") for picture in section.pictures]
        parts.append(f"<pre>{html.escape(section.command)}</pre></section>")
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    parts.append(f"<section><h2>Protocol</h2><table>{rows}</table><pre>{html.escape(again)}</pre></section>")
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _figure(kind: str, picture: bytes, caption: str) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    text = html.escape(caption)
    below = f"<figcaption>{text}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{text}" loading="lazy">{below}</figure>'


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --fill: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; border-bottom: 1px solid var(--line); padding-bottom: 1rem; }
section { margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
pre { background: var(--fill); padding: .6rem .8rem; font-size: .85rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; }
.clips figure { margin: 0; }
figcaption { font-size: .8rem; }
.failed { border-left: 4px solid #c80; padding-left: .8rem; }
"""
