"""The web UI that listens, if there is one: ComfyUI may be used as a library."""

from __future__ import annotations

import sys

from comfy_execution.utils import get_executing_context


def server():
    """ComfyUI's server, or None where it is used without one."""
    module = sys.modules.get("server")
    return module and getattr(module.PromptServer, "instance", None)


def say(text: str) -> None:
    """Show a text on the node that is being executed."""
    context, listening = get_executing_context(), server()
    if listening is not None and context is not None:
        listening.send_progress_text(text, context.node_id)


def tell(event: str, values: dict[str, object]) -> None:
    """Send an event to the page that queued what is being executed."""
    listening = server()
    if listening is not None:
        listening.send_sync(event, values, getattr(listening, "client_id", None))
