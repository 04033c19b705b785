"""Compute the true capacity of each engine from millions of requests, and keep it in `truth.json`.

    python -m tests.bench.capacity truth     # 8 minutes on 2 cores

A linear regression of the log odds of a miss on the log rate, at three rates around the capacity with several seeds.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean

from loadtest.capacity.simulation.simulate import run
from loadtest.capacity.statistics.saturation_curve import log_odds
from tests.bench.capacity.engines import KNOWN

_FILE = Path(__file__).with_name("truth.json")
_REQUESTS, _SEEDS, _ASIDE = 300_000, 4, 0.02


@dataclass(frozen=True, slots=True)
class Truth:
    """Requests/s at which the objective is just met in the long run, relative standard error, slope of the curve."""

    rate: float
    error: float
    slope: float
    engine: str  # description of the engine


def describe(name: str) -> str:
    """Return everything on which the capacity of this engine depends."""
    kind, make = KNOWN[name]
    return f"{make.__name__} {kind}"


def served(name: str) -> Truth:
    """Return the true capacity of a kind of engine over HTTP."""
    return read()[f"{name} over HTTP"]


def read() -> dict[str, Truth]:
    """Read `truth.json`. Raises ValueError if it does not match the engines."""
    found = {name: Truth(**fields) for name, fields in json.loads(_FILE.read_text()).items()}
    stale = [name for name in KNOWN if name not in found or found[name].engine != describe(name)]
    if stale:
        raise ValueError(f"{_FILE.name} is stale for {', '.join(stale)}: run python -m tests.bench.capacity truth")
    return found


def misses(name: str, rate: float, seed: int, requests: int) -> float:
    """Return the share of requests that miss."""
    kind, make = KNOWN[name]
    arrivals = islice(kind.arrivals(rate, f"truth/{seed}"), requests)
    return sum(not kind.limits.met(sequence) for sequence in run(make(kind.engine, seed), arrivals)) / requests


def write(jobs: int) -> None:
    """Compute and write `truth.json` for all engines."""
    with ProcessPoolExecutor(jobs) as pool:
        found = {name: _truth(name, pool) for name in KNOWN}
    _FILE.write_text(json.dumps({name: _fields(truth) for name, truth in found.items()}, indent=1) + "\n")


def _fields(truth: Truth) -> dict[str, object]:
    return {"rate": truth.rate, "error": truth.error, "slope": truth.slope, "engine": truth.engine}


def _truth(name: str, pool: ProcessPoolExecutor) -> Truth:
    guess = _guess(name)
    rates = [guess * math.exp(offset) for offset in (-_ASIDE, 0.0, _ASIDE) for _ in range(_SEEDS)]
    seeds = list(range(_SEEDS)) * 3
    count = len(rates)
    shares = pool.map(misses, [name] * count, rates, seeds, [_REQUESTS] * count)
    x, y = [math.log(rate) for rate in rates], [log_odds(share) for share in shares]
    centre, level = mean(x), mean(y)
    slope = sum((a - centre) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - centre) ** 2 for a in x)
    # The seeds repeat at each rate: only their means are independent.
    means = [mean(y[seed::_SEEDS]) for seed in range(_SEEDS)]
    error = math.sqrt(sum((value - level) ** 2 for value in means) / (_SEEDS - 1) / _SEEDS) / slope
    target = log_odds(1 - KNOWN[name][0].objective)
    truth = Truth(math.exp(centre + (target - level) / slope), error, slope, describe(name))
    print(f"{name:20} {truth.rate:8.3f} requests/s +- {truth.error:.2%}, slope {slope:.1f}", flush=True)
    return truth


def _guess(name: str) -> float:
    low, high = 0.5, 500.0
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        enough = misses(name, middle, 99, 20_000) < 1 - KNOWN[name][0].objective
        low, high = (middle, high) if enough else (low, middle)
    return math.sqrt(low * high)
