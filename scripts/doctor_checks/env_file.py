"""The lines of .env as Compose reads them: quotes, comments, and `$` for variables."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# compose-go's dotenv: quoted values may have several lines, and end at their quote, whatever follows it.
_ENTRY = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][\w.-]*)[ \t]*[=:][ \t]*
    (?:(?P<quote>['"])(?P<quoted>(?:\\[\s\S]|(?!(?P=quote))[^\\])*)(?P=quote)(?P<rest>.*)|(?P<plain>.*))$""",
    re.MULTILINE | re.VERBOSE,
)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_]\w*)(?P<default>[^}]*)\}|(?P<bare>[A-Za-z_]\w*))")


@dataclass(frozen=True)
class Entry:
    """One setting of .env; `text` is the value before Compose puts variables in, without quotes and comment."""

    name: str
    text: str
    quote: str  # of the value: ', " or none
    left_out: str  # what follows the value on its line, without a comment after quotes

    @property
    def variables(self) -> list[str]:
        """Names of the variables that Compose puts in, except those with a default of their own."""
        if self.quote == "'":
            return []
        text = self.text.replace("$$", "")
        text = text.replace("\\$", "") if self.quote else text
        return [found["braced"] or found["bare"] for found in _VARIABLE.finditer(text) if not found["default"]]

    @property
    def takes_dollar(self) -> bool:
        """Return whether Compose changes a `$` of the value."""
        return self.quote != "'" and re.search(r"\$[A-Za-z_{$]", self.text) is not None


def entries(text: str) -> Iterator[Entry]:
    """Read the settings of a .env file's text."""
    for found in _ENTRY.finditer(text.lstrip("\ufeff").replace("\r\n", "\n")):
        if found["quote"]:
            rest = found["rest"].strip()
            yield Entry(found["name"], found["quoted"], found["quote"], "" if rest.startswith("#") else rest)
        else:
            value, _, comment = found["plain"].partition(" #")
            yield Entry(found["name"], value.strip(), "", comment.strip())


def read(folder: Path) -> list[Entry]:
    """Read the settings of the files that Compose reads in `folder`: .env, or those in COMPOSE_ENV_FILES."""
    found: list[Entry] = []
    for file in files(folder):
        try:
            found += entries(file.read_text())
        except (OSError, ValueError):
            continue  # Compose names the file itself
    return found


def files(folder: Path) -> list[Path]:
    """Paths of the files that Compose reads its settings from."""
    given = os.environ.get("COMPOSE_ENV_FILES", "")
    return [folder / name for name in given.split(",") if name] or [folder / ".env"]
