"""What is said to the user when a sweep cannot be run as it is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tools.home import Failure

__all__ = ["Failure", "known", "nearest"]


def nearest(name: object, names: Iterable[object]) -> str:
    """`; did you mean 'steps'?`, or the first few names that there are."""
    there = [str(each) for each in names]
    close = difflib.get_close_matches(str(name), there, 1, 0.5)
    if not close:  # letters in another case, or a part of it
        close = [each for each in there if str(name).lower() in each.lower()][:1]
    if close:
        return f"; did you mean {close[0]!r}?"
    few = ", ".join(map(repr, there[:8])) + (" ..." if len(there) > 8 else "")
    return f"; there are {few}." if there else "; there are none."


def known(where: str, given: Iterable[object], names: Iterable[str]) -> None:
    """Refuse a name that does not exist, with the nearest that does."""
    for name in given:
        if name not in names:
            raise Failure(f"{where}: there is no {name!r}{nearest(name, names)}")
