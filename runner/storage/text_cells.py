"""The text cells of a table, which spreadsheets and terminals show but never execute; numbers and lists are no texts.

A text is written as it is, unless it has a control character or a spreadsheet would execute it. Then it has an
apostrophe in front, and its control characters are escaped. Every text is read back as it was.
"""

import re

from runner.plan.texts import CONTROLS, escape_character

MARK = "'"
"""What stands before an escaped text; spreadsheets take it as the sign of a text, too."""

_FORMULA = re.compile("['\"]*(?P<body>[=+\\-@\uff1d\uff0b\uff0d\uff20].*)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))")


def encode_text(text: str) -> str:
    """A text as its cell in the table."""
    if _is_plain(text):
        return text
    doubled = _ESCAPE.sub(lambda found: r"\x5c" + found[0][1:], text)
    return MARK + CONTROLS.sub(lambda found: escape_character(found[0]), doubled)


def decode_text(cell: str) -> str:
    """The text that a cell stands for."""
    if not cell.startswith(MARK):
        return cell
    text = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), cell[1:])
    return cell if _is_plain(text) else text


def _is_plain(text: str) -> bool:
    """Whether a text is its own cell; not if it looks like the cell of another text."""
    formula = _FORMULA.match(text)
    is_executed = formula is not None and not _NUMBER.fullmatch(formula["body"])
    return not (is_executed or CONTROLS.search(text) or (text.startswith(MARK) and _ESCAPE.search(text)))
