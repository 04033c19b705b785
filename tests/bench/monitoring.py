"""`python -m tests.bench.monitoring PAGE PAGE`: measures the cost of Prometheus for one and many engines.

The pages are /metrics of a real engine before and after some load. Simulated engines serve values that move from the
one to the other and beyond, each at its own pace, to compose.yaml's Prometheus with the project's rules.
No test: nothing passes or fails here.
"""

import argparse
import json
import random
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.rig.running_stack import free_ports

ROOT = Path(__file__).parents[2]
_SAMPLE = re.compile(r"^(\S.*) (\S+)$")


@dataclass
class Engine:
    """One simulated engine: with each scrape its values move on from `before` towards `after`."""

    lines: list[str]
    before: dict[str, float]
    after: dict[str, float]
    steps: int
    position: float = field(default_factory=lambda: random.uniform(0, 100))  # noqa: S311  # no secret

    def page(self) -> bytes:
        """Advance the values and return the page."""
        self.position += random.uniform(0.2, 1.8)  # noqa: S311  # no secret
        return "\n".join(self._line(line) for line in self.lines).encode() + b"\n"

    def _line(self, line: str) -> str:
        sample = None if line.startswith("#") else _SAMPLE.match(line)
        if sample is None or sample[1] not in self.before:
            return line
        first, last = self.before[sample[1]], self.after[sample[1]]
        value = first + (last - first) / self.steps * self.position
        # Whole numbers stay whole, so that they compress like counts.
        return f"{sample[1]} {round(value) if first.is_integer() and last.is_integer() else value}"


def read(path: Path) -> tuple[list[str], dict[str, float]]:
    """Lines and values of a page."""
    lines = path.read_text().splitlines()
    matches = (_SAMPLE.match(line) for line in lines if not line.startswith("#"))
    return lines, {match[1]: float(match[2]) for match in matches if match}


def serve(engine: Engine) -> int:
    """Serve `engine` until this process ends; return its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = engine.page()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def configuration(ports: list[int], own: int) -> str:
    """The project's configuration, with these engines in place of DNS discovery."""
    given = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    by_name = {job["job_name"]: job for job in given["scrape_configs"]}
    vllm = {name: value for name, value in by_name["vllm"].items() if name != "dns_sd_configs"}
    vllm["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    itself = {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{own}"]}]}
    given |= {"scrape_configs": [itself, vllm]}
    del given["alerting"]
    return yaml.safe_dump(given)


@dataclass
class Prometheus:
    """A running Prometheus, by its container and port."""

    container: str
    port: int

    def get(self, path: str, *, post: bool = False, **parameters: str) -> Any:
        """Answer of its API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST" if post else "GET")) as answer:
            return json.load(answer)["data"]

    def value(self, promql: str) -> float:
        """The only value of an instant query."""
        [series] = self.get("query", query=promql)["result"]
        return float(series["value"][1])


def measure(engines: int, pages: tuple[Path, Path], minutes: float, image: str) -> dict[str, float]:
    """Run Prometheus on so many engines for so long, and measure it."""
    (lines, before), (_, after) = map(read, pages)
    steps = 12  # the pages are about a minute apart
    ports = [serve(Engine(lines, before, after, steps)) for _ in range(engines)]
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "prometheus.yml"
        [own] = free_ports(1)
        config.write_text(configuration(ports, own))
        Path(name).chmod(0o755)
        command = ["docker", "run", "--rm", "--detach", "--network", "host", "--tmpfs", "/tmp:mode=1777"]  # noqa: S108
        command += ["--volume", f"{ROOT}/docker/prometheus:/etc/prometheus:ro", "--volume", f"{config}:/config.yml:ro"]
        command += ["--tmpfs", "/data:size=2g,mode=1777", "--entrypoint", "sh", image]
        command += ["/etc/prometheus/start.sh", "--config.file=/config.yml", "--storage.tsdb.path=/data"]
        command += [f"--web.listen-address=127.0.0.1:{own}", "--web.enable-admin-api"]
        container = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        try:
            time.sleep(minutes * 60)
            return figures(Prometheus(container, own))
        finally:
            subprocess.run(["docker", "kill", container], capture_output=True, check=True)


def figures(prometheus: Prometheus) -> dict[str, float]:
    """Series, samples, memory, CPU, and the size of a block."""
    itself, query = 'job="prometheus"', prometheus.value
    found = {
        "series per engine": query('max(scrape_samples_post_metric_relabeling{job="vllm"})'),
        "series": query(f"prometheus_tsdb_head_series{{{itself}}}"),
        "samples/s": query(f"sum(rate(prometheus_tsdb_head_samples_appended_total{{{itself}}}[5m]))"),
        "memory MiB": query(f"max_over_time(process_resident_memory_bytes{{{itself}}}[5m])") / 2**20,
        "CPU cores": query(f"rate(process_cpu_seconds_total{{{itself}}}[5m])"),
        "scrape ms, mean": 1000 * query('avg(avg_over_time(scrape_duration_seconds{job="vllm"}[5m]))'),
        "rules ms, slowest group": 1000 * query(f"max(prometheus_rule_group_last_duration_seconds{{{itself}}})"),
        "WAL MiB": query(f"prometheus_tsdb_wal_storage_size_bytes{{{itself}}}") / 2**20,
    }
    block = f"/data/snapshots/{prometheus.get('admin/tsdb/snapshot', post=True)['name']}"
    script = f"du -sk {block} | cut -f1; cat {block}/*/meta.json"
    command = ["docker", "exec", prometheus.container, "sh", "-c", script]
    size, _, meta = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("\n")
    samples = json.loads(meta)["stats"]["numSamples"]
    found["bytes per sample"] = int(size) * 1024 / samples
    found["MiB a day"] = found["bytes per sample"] * found["samples/s"] * 86400 / 2**20
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.monitoring", description=__doc__)
    parser.add_argument(
        "pages", nargs=2, type=Path, metavar="PAGE", help="/metrics of an engine, a minute of load apart"
    )
    parser.add_argument("--engines", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--minutes", type=float, default=15)
    given = parser.parse_args()
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    for engines in given.engines:
        found = measure(engines, tuple(given.pages), given.minutes, compose["services"]["prometheus"]["image"])
        print(f"{engines} engines: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
