"""Texts of tasks and users, which may hold anything: control characters, and more than anyone reads."""

import re

LONGEST_REASON = 500
"""Characters of the reason of a failure."""

CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a cursor, end a line or a string, turn the direction of a text, or cannot be encoded."""


def escape_controls(text: str, keep: str = "") -> str:
    """The text with its control characters, except those in `keep`, as escapes such as `\\x1b`."""
    return CONTROLS.sub(lambda found: found[0] if found[0] in keep else escape_character(found[0]), text)


def escape_character(character: str) -> str:
    """A character as `\\xNN`, or as `\\uNNNN` if it is beyond U+00FF."""
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def shorten_reason(reason: str, longest: int = LONGEST_REASON) -> str:
    """A reason as the table has it: in one line, without control characters, and not longer than people read."""
    text = escape_controls(reason[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"
