"""What may end a climb before its time, and what is said of memory that ran out."""

from __future__ import annotations

import logging

import comfy.model_management as management

from ....dno.checks import NoGradientError, NonFiniteError
from ....dno.objective import TermError
from ..keeping import KeptOnRequest
from ..web import say

HOST_ERRORS = (management.InterruptProcessingException, management.OOM_EXCEPTION)
STOPPING_ERRORS = (NonFiniteError, NoGradientError, TermError, KeptOnRequest, *HOST_ERRORS)
OUT_OF_MEMORY = (
    "DNO ran out of memory: choose memory 'least' in DNO Options, a smaller latent or batch, or a "
    "smaller decoder such as TAESD."
)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, in a term of the objective too."""
    cause = error.__cause__ if isinstance(error, TermError) else error
    return isinstance(cause, management.OOM_EXCEPTION)


def tell_out_of_memory() -> None:
    """In the log and to the page."""
    say(OUT_OF_MEMORY)
    logging.error(OUT_OF_MEMORY)
