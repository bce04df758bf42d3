"""Sudden death at a named step, so that tests can show what one rerun makes of it."""

from __future__ import annotations

import os
import signal

from flows.settings import get_settings


def die_here_if_asked(step: str) -> None:
    """Kill this process, as `kill -9` would, when the setting `FAULT_AT` names this step."""
    if get_settings().fault_at == step:
        os.kill(os.getpid(), signal.SIGKILL)
