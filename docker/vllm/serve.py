"""Start vLLM's OpenAI-compatible server from the settings in .env, and explain a failure.

Entrypoint of the `vllm` service. vLLM runs as a child (supervisor.py), watched for stalls (watchdog.py). When a start
fails, the last line of the log names the setting to change.
"""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial

import api_access
import engine_environment
import engine_folders
import host_resources
import replica_resources
import settings as engine_settings
from router_registration import Registration, own_url
from supervisor import Supervisor, Watch
from watchdog import say

# With ENGINE_STALL_TIMEOUT_S=0 nothing ends a stalled engine, but the health check reports it.
DEFAULT_STALL_S = 120.0


def checked_command(settings: engine_settings.Settings) -> list[str]:
    """Command that starts vLLM. Raises SettingError when it could not work."""
    engine_settings.check_files(settings)
    engine_settings.check_cache()
    engine_folders.prepare()
    engine_settings.check_cpu(settings, host_resources.cpu_flags(), os.uname().machine)
    engine_settings.check_memory(settings, host_resources.available_memory_bytes())
    replica_resources.assign(settings)
    command = ["vllm", "serve", *engine_settings.arguments(settings)]
    say(shlex.join(command))
    return command


def main() -> int:
    """Check the settings, then serve; return the container's exit code."""
    try:
        settings = engine_settings.read()
        if given := engine_environment.adopt():
            say(f"ENGINE_ENV sets {', '.join(given)}")
        api_access.adopt_key()
        api_access.check()
        limit_s = settings.stall_timeout_s
        watch = Watch(
            model=settings.served_model_name,
            limit_s=limit_s or DEFAULT_STALL_S,
            restart=limit_s > 0,
            cpu_counts=settings.device == "cpu",
        )
        router = os.environ.get("ROUTER_URL")
        own = partial(own_url, port=engine_settings.PORT)
        registration = Registration(router, own) if router else None
        return Supervisor(watch, registration).run(lambda: checked_command(settings))
    except engine_settings.SettingError as error:
        say(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
