"""The operator's list of words: how it is written, and what matches it.

A line is a word, or several that follow each other; ``*`` at an end stands for any further letters; ``#`` begins a
comment. Words match whole, however they are written as far as Unicode says that it is the same: wide, bold or circled
letters, capitals, accents, and invisible characters inside. What only looks or sounds alike does not match: letters of
another script, digits for letters, letters apart, misspellings, other words for the same.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

_WORD = re.compile(r"[^\W_]+")
_ENTRY_WORD = re.compile(r"(\*?)([^\W_]+)(\*?)")
_LEFT_OUT = ("Cc", "Cf", "Mn", "Me")  # controls, zero-width characters and the like, accents, enclosing marks
_FILLERS = "\u115f\u1160\u3164\uffa0"  # of Hangul: letters that nobody sees
_MOST_BYTES = 2**20
_LOG = logging.getLogger("openlumiere.app")


def words_of(text: str) -> list[str]:
    """Return the words of a text, without what may differ between two ways to write the same."""
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    # Line ends and tabs are controls, too, but keep words apart.
    apart = unicodedata.normalize("NFKD", " ".join(text.split()))
    bare = "".join(x for x in apart if unicodedata.category(x) not in _LEFT_OUT and x not in _FILLERS)
    return unicodedata.normalize("NFKC", bare.casefold())


class BlockList:
    """A list of words in a file, which is read again when it changes.

    Raises:
        LumiereError: it cannot be read, or a line of it means nothing; says which.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = _state(path)
        self._lines = _read(path)

    def match(self, text: str) -> int | None:
        """Return the number of the line that a text matches; None = it matches none."""
        self._refresh()
        words = f" {' '.join(words_of(text))} "
        return next((line for line, entry in self._lines if _is_in(entry, words)), None)

    def _refresh(self) -> None:
        """Read the file again if it has changed; while it cannot be read, what was listed stays listed."""
        state = _state(self.path)
        if state == self._state:
            return
        self._state = state  # first, so that a bad file is told of once
        try:
            self._lines = _read(self.path)
            _LOG.info("%s was read again: %d entries", self.path, len(self._lines))
        except LumiereError as error:
            _LOG.error("%s; what was listed before stays in force", one_line(error))


def _is_in(entry: str | re.Pattern[str], words: str) -> bool:
    return entry in words if isinstance(entry, str) else entry.search(words) is not None


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> list[tuple[int, str | re.Pattern[str]]]:
    """Return the entries, as words with a space around each or as patterns of such, with their lines' numbers."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise LumiereError(f"block list {path}: {error.strerror}; give a text file with a word in each line") from error
    except UnicodeDecodeError as error:
        raise LumiereError(f"block list {path} is no UTF-8 text; save it as such") from error
    if len(data) > _MOST_BYTES:
        raise LumiereError(f"block list {path} has more than {_MOST_BYTES} bytes; shorten it")
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        if entry:
            lines.append((number, _entry(entry, f"block list {path}, line {number}: {entry[:60]!r}")))
    return lines


def _entry(entry: str, where: str) -> str | re.Pattern[str]:
    parts = [_ENTRY_WORD.fullmatch(part) for part in re.sub(r"[^\w*]|_", " ", _plain(entry)).split()]
    if not parts:
        raise LumiereError(f"{where} has neither letters nor digits; give words")
    if None in parts:
        raise LumiereError(f"{where}: * stands at the start or the end of a word; write it so")
    if "*" not in entry:  # the many, and much faster
        return f" {' '.join(words_of(entry))} "
    words = (f"{found[1] and '[^ ]*'}{re.escape(found[2])}{found[3] and '[^ ]*'}" for found in parts if found)
    return re.compile(f" {' '.join(words)} ")
