"""What a terminal cannot show is printed as the nearest ASCII: output never ends a command whose work is done."""

from __future__ import annotations

import codecs
import io
from typing import Any

NEAREST = {"−": "-", "–": "-", "—": "-", "→": "->", "∞": "inf", "…": "...", "±": "+-", "×": "x", "é": "e", "Δ": "delta "}
"""Characters of the reports outside ASCII; any other becomes a question mark."""


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(NEAREST.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error("jaxgan.nearest", _nearest)


def forgive(stream: Any) -> None:
    """Makes a text stream print ``NEAREST`` where it would raise UnicodeEncodeError (a terminal or pipe that is not UTF-8); others stay."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="jaxgan.nearest")
