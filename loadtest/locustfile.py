"""Load test of an OpenAI-compatible server; `locust -f loadtest/locustfile.py --help` lists the options.

locust -f loadtest/locustfile.py --headless --host http://localhost:8000 --model NAME -u 8 -r 8 -t 60s
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it runs from any folder

from loadtest.locust_plugin.hooks import install
from loadtest.sending.locust_user import LanguageModelUser

__all__ = ["LanguageModelUser"]

install()
