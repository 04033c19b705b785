"""Health check of the `vllm` service: the engine has answered each kind of request once, and makes progress.

/health succeeds once the engine has loaded, and still does when the engine hangs. So the check also reads what warm-up
and watchdog have written. It asks for nothing itself: a first request may have to wait for minutes of compilation.
"""

from __future__ import annotations

import sys

import api_client
import state_files

TIMEOUT_S = 10  # a busy engine answers late


def main() -> int:
    """Exit code of the health check."""
    try:
        api_client.request("/health", timeout_s=TIMEOUT_S)
        for marker in (state_files.STALLED, state_files.WARMING_UP):
            if marker.exists():
                print(f"not healthy: {marker.read_text()}")
                return 1
    except OSError as error:
        print(f"not healthy: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
