"""What a user builds out of fields: checked when it is built, prepared once, found by its words."""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from typing import TypeVar

from .fields import check_fields

T = TypeVar("T")


class prepared(cached_property[T]):
    """A property that is computed once, when the instance is built and its fields are good.

    For what a reward needs at every call and its fields decide, such as a prompt's embedding. It
    raises ValueError, one sentence, where the fields do not go together.
    """


class Declared:
    """A frozen dataclass that a user builds: a reward, a regularizer, an optimizer.

    title:   its name in menus, where that is not its class's name in words.
    group:   the sub-menu that it is in, if any: "tone and colour".
    aliases: everyday words that find it: ("darker", "night").
    """

    title: str = ""
    group: str = ""
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        self.check()
        for base in reversed(type(self).__mro__):
            for name, attribute in vars(base).items():
                if isinstance(attribute, prepared):
                    getattr(self, name)

    def check(self) -> None:
        """Raise ValueError, one sentence, where good fields do not go together."""


def words(cls: type[Declared]) -> str:
    """The class's name in menus: its title, or its name in words.

    >>> words(type("LowFrequencyLayout", (Declared,), {})), words(type("JPEGSize", (Declared,), {}))
    ('Low Frequency Layout', 'JPEG Size')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", cls.__name__)
    return cls.title or spaced


def term_name(cls: type[Declared]) -> str:
    """The plain name of a term in plots and reports.

    >>> term_name(type("JPEGSize", (Declared,), {}))
    'JPEG size'
    """
    if cls.title:
        return cls.title
    return " ".join(word if word.isupper() else word.lower() for word in words(cls).split())


def summary(cls: type) -> str:
    """The first paragraph of the docstring: one sentence.

    >>> summary(Declared)
    'A frozen dataclass that a user builds: a reward, a regularizer, an optimizer.'
    """
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
