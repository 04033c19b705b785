"""Health check of the `vllm` service: healthy once a chat was answered, then as long as the engine makes progress.

/health answers as soon as the engine has loaded; `docker compose up --wait` promises more, so the first success
asks for one token. And it goes on answering when the engine behind it hangs; the watchdog knows that.
"""

from __future__ import annotations

import os
import sys

import api_access
import api_client
import state_files
from engine_settings import SettingError

TIMEOUT_S = 10  # a busy engine answers late; less would call it dead


def main() -> int:
    """Exit code of the health check."""
    try:
        api_access.adopt_key()
        api_client.request("/health", timeout_s=TIMEOUT_S)
        if state_files.STALLED.exists():
            print(f"not healthy: {state_files.STALLED.read_text()}")
            return 1
        if not state_files.ANSWERED.exists():
            api_client.ask_for_a_token(
                os.environ.get("SERVED_MODEL_NAME") or os.environ["MODEL_ID"], timeout_s=TIMEOUT_S
            )
            state_files.ANSWERED.touch()
    except (OSError, SettingError) as error:
        print(f"not healthy: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
