"""The page of a comparison: one HTML file beside its clips, which asks nobody else for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from openlumiere import files, study

_PAGE = Path(__file__).parent / "assets"
_BASE = Path(study.__file__).parent / "page" / "base.css"


def write_page(report: Mapping[str, Any], folder: Path) -> Path:
    """Write ``index.html``; styles, script and figures are inside it, clips lie beside it.

    Args:
        report: as `compare.make_report` returns it.
    """
    style = "".join(path.read_text(encoding="utf-8") for path in (_BASE, _PAGE / "style.css"))
    # "<" is the one character that could end the script early.
    data = json.dumps(report, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    names = ", ".join(entry["name"] for entry in report["entries"])
    page = Template((_PAGE / "index.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{names}: comparison"), style=style, data=data,
        script=(_PAGE / "compare.js").read_text(encoding="utf-8"),
    )  # fmt: skip
    path = folder / "index.html"
    files.write_text(path, page)
    return path
