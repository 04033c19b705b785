"""Health check of the `vllm` service: a chat was answered once, and the engine makes progress.

/health succeeds once the engine has loaded, and still does when the engine hangs. So the first check asks for one
token, and later ones also read the watchdog's state.
"""

from __future__ import annotations

import sys

import api_access
import api_client
import settings as engine_settings
import state_files

TIMEOUT_S = 10  # a busy engine answers late


def main() -> int:
    """Exit code of the health check."""
    try:
        api_access.adopt_key()
        api_client.request("/health", timeout_s=TIMEOUT_S)
        if state_files.STALLED.exists():
            print(f"not healthy: {state_files.STALLED.read_text()}")
            return 1
        if not state_files.ANSWERED.exists():
            api_client.ask_for_a_token(engine_settings.read().served_model_name, timeout_s=TIMEOUT_S)
            state_files.ANSWERED.touch()
    except (OSError, engine_settings.SettingError) as error:
        print(f"not healthy: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
