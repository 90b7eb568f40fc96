"""A climb that ends with the best so far: by a button on its node, or by Cancel if so chosen."""

from __future__ import annotations

import threading
import uuid

import comfy.model_management as management
from comfy_execution.utils import get_executing_context

from .web import server, tell

ROUTE = "/dno/keep"
EVENT = "dno_climb"
REASON = "kept on request"
_running: dict[str, Keeping] = {}


class KeptOnRequest(Exception):
    """The user takes the best so far."""


class Keeping:
    """How the user ends one climb. A context: within, requests reach it.

    on_cancel: whether ComfyUI's Cancel is such a request; a second one is a Cancel as ever.

    Before the first picture there is nothing to keep: a request waits, and a Cancel is one as ever.
    """

    def __init__(self, on_cancel: bool = False):
        self._on_cancel, self._asked = on_cancel, threading.Event()
        self._something = self._over = False
        context, listening = get_executing_context(), server()
        self.client = getattr(listening, "client_id", None)
        self.told = {
            "climb": uuid.uuid4().hex,
            "node": context and context.node_id,
            "prompt": context and context.prompt_id,
        }

    def __enter__(self) -> Keeping:
        _running[self.told["climb"]] = self
        return self

    def __exit__(self, *error) -> None:
        del _running[self.told["climb"]]
        if self._something:
            tell(EVENT, {**self.told, "running": False})

    @property
    def can_keep(self) -> bool:
        return self._something and not self._over

    def ask(self) -> bool:
        """From any thread: end it before its next call of the network. False: it is over."""
        self._asked.set()
        return not self._over

    def begin(self) -> None:
        """A picture is there: from now on it can be kept, and the page is told so once."""
        if not self._something:
            self._something = True
            tell(EVENT, {**self.told, "running": True})

    def check(self) -> None:
        """Between two calls of the network. Raises KeptOnRequest, or the host's interrupt."""
        if self.can_keep:
            if self._on_cancel and management.processing_interrupted():
                management.interrupt_current_processing(False)
                raise KeptOnRequest
            if self._asked.is_set():
                raise KeptOnRequest
        management.throw_exception_if_processing_interrupted()

    def keeps(self, error: BaseException | None) -> bool:
        """Whether this error is the user's wish for the best so far; then it ends here."""
        cancelled = isinstance(error, management.InterruptProcessingException)
        wanted = isinstance(error, KeptOnRequest) or (cancelled and self._on_cancel)
        if not (wanted and self.can_keep):
            return False
        self._over = True
        return True


def listen() -> None:
    """Let the web UI ask for it, where there is one."""
    listening = server()
    if listening is None or any(getattr(each, "path", "") == ROUTE for each in listening.routes):
        return
    from aiohttp import web  # ComfyUI's own server is made of it

    @listening.routes.post(ROUTE)
    async def keep(request):
        """{"climb": id} -> {"asked": how many climbs}; without an id, all of the client's."""
        posted = await request.json()
        if not isinstance(posted, dict):
            return web.json_response(
                {"error": "Post the climb's id: {'climb': '...'}."}, status=400
            )
        wanted = [
            each
            for each in list(_running.values())
            if posted.get("climb", each.told["climb"]) == each.told["climb"]
            and posted.get("client", each.client) == each.client
        ]
        return web.json_response({"asked": sum(each.ask() for each in wanted)})

    @listening.routes.get(ROUTE)
    async def running(request):
        """The climbs of ?client=... that hold something to keep, for a page that was reloaded."""
        client = request.query.get("client")
        held = [each for each in list(_running.values()) if each.can_keep]
        mine = [{**each.told, "running": True} for each in held if client in (None, each.client)]
        return web.json_response(mine)
