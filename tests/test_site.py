"""The documentation as a site: it builds without a warning, and every link leads somewhere."""

from __future__ import annotations

import importlib.util
import posixpath
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]


class Links(HTMLParser):
    """What a page refers to, and the anchors that it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            if value and (name == "href" or (name == "src" and tag in ("img", "script", "source"))):
                self.targets.append(value)


@pytest.mark.slow
def test_the_site_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert built.returncode == 0, built.stderr
    pages = {
        path.relative_to(tmp_path).as_posix(): Links(path.read_text(encoding="utf-8"))
        for path in tmp_path.rglob("*.html")
        if path.name != "404.html"
    }
    broken = []
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert "fonts.g" not in target
                continue
            path = (
                posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path))) if parts.path else page
            )
            path = f"{path}/index.html".removeprefix("./") if (tmp_path / path).is_dir() else path
            anchor = unquote(parts.fragment)
            if not (tmp_path / path).is_file() or (anchor and path in pages and anchor not in pages[path].anchors):
                broken.append((page, target))
    assert not broken
    assert "LumierePipeline" in (tmp_path / "reference.html").read_text(encoding="utf-8")


def test_links_to_what_is_no_page_are_names() -> None:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    markdown = "[use](docs/usage.md#loops) ![cat](docs/images/cat.webp) [why](CONTRIBUTING.md) [code](src/a.py) [w](https://a.b)"
    expected = "[use](usage.md#loops) ![cat](images/cat.webp) [why](contributing.md) code [w](https://a.b)"
    assert pages.relinked(markdown, "") == expected
    assert (
        pages.relinked("[recipes](../configs/README.md), [gpu](gpu.md)", "docs")
        == "[recipes](recipes.md), [gpu](gpu.md)"
    )
