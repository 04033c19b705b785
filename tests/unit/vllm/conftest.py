import sys
from pathlib import Path

# The modules lie beside each other in the container, so they import each other by their bare names.
sys.path.insert(0, str(Path(__file__).parents[3] / "docker" / "vllm"))
