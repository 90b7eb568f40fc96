"""Prompts as CLIP was trained on them: the repairs of its own tokenizer, without its library."""

from __future__ import annotations

import html
import unicodedata

_QUOTES = {**dict.fromkeys(range(0x2018, 0x201C), "'"), **dict.fromkeys(range(0x201C, 0x2020), '"')}
_LIGATURES = "ĲĳǄǅǆǇǈǉǊǋǌǱǲǳﬀﬁﬂﬃﬄﬆ"
_WIDE = (*range(0xFF01, 0xFFF0), 0x3000)  # Latin in full width, Japanese and Korean in half
_GONE = (
    *(*range(9), 0x0B, *range(0x0E, 0x20), 0x7F),
    *(*range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)),
)
_PLAIN = {
    **{ord(letter): unicodedata.normalize("NFKC", letter) for letter in _LIGATURES},
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in _WIDE},
    **_QUOTES,
    **{0x0149: "'n", 0x02BC: "'", 0xFB05: "ſt"},
    **dict.fromkeys(_GONE),
}


def repaired(prompt: str) -> str:
    """Straight quotes, no ligatures, no HTML entities, no control characters, composed accents.

    What ftfy's fix_text and html.unescape make of a text that was decoded rightly, as in OpenAI's
    and OpenCLIP's tokenizers. That of transformers does it, if at all, only beside ftfy.
    """
    unescaped = html.unescape(html.unescape(prompt))
    return unicodedata.normalize("NFC", unescaped.translate(_PLAIN))
