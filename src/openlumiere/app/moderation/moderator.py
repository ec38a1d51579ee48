"""The one place that says whether something may be asked for: the block list first, then the classifier."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from openlumiere.app.settings import ModerationSettings
from openlumiere.errors import LumiereError
from openlumiere.files import one_line

from .block_list import BlockList
from .classifier import Classifier, NoAnswer

REASONS = ("block_list", "classifier", "no_answer")
_LOG = logging.getLogger("openlumiere.app")


class NotAllowed(LumiereError):  # noqa: N818 - what it is
    """The operator does not allow what is asked for.

    Args:
        param: the field that it is about; None = not known.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotChecked(LumiereError):  # noqa: N818 - what it is
    """It could not be checked whether something is allowed, so it is refused."""


class Moderator:
    """Checks what is asked for, and counts what it refused.

    Logs tell who asked, and which line or category it was; never what was asked for.

    Attributes:
        refused: how many, by reason.

    Raises:
        LumiereError: the block list cannot be read, or the classifier has no address.
    """

    def __init__(self, settings: ModerationSettings = ModerationSettings()) -> None:  # noqa: B008 - frozen
        self._words = BlockList(Path(settings.block_list)) if settings.block_list else None
        self._classifier = (
            Classifier(settings.classifier, key=settings.classifier_key, seconds=settings.classifier_seconds)
            if settings.classifier
            else None
        )
        self.refused = Counter(dict.fromkeys(REASONS, 0))

    @property
    def wants_pictures(self) -> bool:
        """Whether pictures are checked, too."""
        return self._classifier is not None

    def check_words(self, owner: str, texts: Mapping[str, str]) -> None:
        """Check texts, by the fields that hold them, against the block list.

        Raises:
            NotAllowed: one of them matches.
        """
        for param, text in texts.items() if self._words else ():
            assert self._words
            line = self._words.match(text)
            if line is not None:
                self.refused["block_list"] += 1
                _LOG.warning("%s: %s refused; it matches line %d of %s", owner, param, line, self._words.path)
                raise NotAllowed(f"{param}: it has words that are not allowed here; change it", param)

    async def classify(self, owner: str, texts: Mapping[str, str], pictures: Sequence[Path] = ()) -> None:
        """Ask the classifier about texts and pictures (JPEG files), where there is one.

        Raises:
            NotAllowed: it flags them.
            NotChecked: it gives no answer.
        """
        if self._classifier is None:
            return
        try:
            found = await self._classifier.flagged("\n".join(filter(None, texts.values())), pictures)
        except NoAnswer as error:
            self.refused["no_answer"] += 1
            _LOG.error("%s: refused; the classifier gives no answer: %s", owner, one_line(error))
            raise NotChecked("what is asked for could not be checked, and is refused; try again later") from error
        if found is not None:
            self.refused["classifier"] += 1
            _LOG.warning("%s: refused; the classifier says %s", owner, one_line(found, 200))
            what = "text or picture" if pictures else "text"
            raise NotAllowed(f"this {what} is not allowed here; change it", None if pictures else "prompt")
