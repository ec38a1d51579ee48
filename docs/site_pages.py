"""MkDocs' hook for `make docs`: pages that lie outside of docs/, and links between all of them.

The documents are written to be read in the repository. On the site the README is the first page, and links to what is
no page, such as a source file, are its name alone.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md", "configs/README.md": "recipes.md", "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md",
}  # fmt: skip
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!\w+:|#)(?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside of docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Have links lead to pages of the site."""
    sources = {found: source for source, found in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return relinked(markdown, posixpath.dirname(source))


def relinked(markdown: str, folder: str) -> str:
    """Return a document with its links as the site has them.

    Args:
        folder: of the document, from the repository's root.
    """

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found["target"]))
        if target in PAGES:
            target = PAGES[target]
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        else:
            return found["text"]
        return f"{found['picture']}[{found['text']}]({target}{found['anchor'] or ''})"

    return _LINK.sub(link, markdown)
