"""Results as a table, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speed_test.side_result import SideResult
    from speed_test.work import Work


def figures(work: Work, results: list[SideResult], limits: dict[str, Any]) -> dict[str, Any]:
    """All results, in seconds, requests, tokens and bytes."""
    return {
        "work": {
            "model": work.model,
            "dtype": work.dtype,
            "quantization": work.quantization,
            "load_format": work.load_format,
            "seed": work.seed,
            "requests": len(work.requests),
            "output_tokens": work.output_tokens,
            "total_tokens": work.total_tokens,
        },
        "limits": limits,
        "results": [_side(work, result, limits) for result in results],
        "ratio": results[1].median_s / results[0].median_s if len(results) == 2 else None,
    }


def _side(work: Work, result: SideResult, limits: dict[str, Any]) -> dict[str, Any]:
    median = result.median_s
    return {
        **asdict(result),
        "median_s": median,
        "spread": result.spread,
        "requests_per_s": len(work.requests) / median,
        "total_tokens_per_s": work.total_tokens / median,
        "output_tokens_per_s": work.output_tokens / median,
        "share_of_bandwidth_limit": limits["bytes_floor_s"] and limits["bytes_floor_s"] / median,
        "share_of_operations_limit": limits["operations_floor_s"] and limits["operations_floor_s"] / median,
    }


def table(results: dict[str, Any]) -> str:
    """Format the table: medians over the repeats, spread (slowest - fastest) / median."""
    work, limits = results["work"], results["limits"]
    mean_in = (work["total_tokens"] - work["output_tokens"]) / work["requests"]
    made = work["output_tokens"] / work["requests"]
    weights = f"{work['quantization'] or work['dtype']}{', random weights' if work['load_format'] == 'dummy' else ''}"
    title = (
        f"{work['model']}, {weights}: {work['requests']} prompts, {mean_in:g} tokens in, {made:g} out, "
        f"seed {work['seed']}"
    )
    lines = [
        title,
        (
            f"{limits['device']}: memory {limits['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s, "
            f"matrix product {limits['operations_per_s'] / 1e12:.3g} TFLOP/s, both just measured"
        ),
        "",
        "      requests/s   tokens/s  output tok/s  spread  bandwidth operations",
    ]
    lines += [
        f"{side['backend']:<6}{side['requests_per_s']:>10.2f}{side['total_tokens_per_s']:>11.2f}"
        f"{side['output_tokens_per_s']:>14.2f}{side['spread']:>8.1%}"
        f"{_share(side['share_of_bandwidth_limit']):>11}{_share(side['share_of_operations_limit']):>11}"
        for side in results["results"]
    ]
    if results["ratio"]:
        fast, slow = results["results"]
        requests, tokens = (fast[name] - slow[name] for name in ("requests_per_s", "total_tokens_per_s"))
        lines.append(f"vllm / hf: {results['ratio']:.2f}; difference {requests:.2f} requests/s, {tokens:.2f} tokens/s")
    lines.append("")
    lines += [
        f"{side['backend']}: version {side['version']}, {side['how']}; median of {len(side['seconds'])} repeats"
        for side in results["results"]
    ]
    lines.append(
        "tokens/s counts prompt and output; bandwidth and operations are the shares of what the hardware allows"
    )
    return "\n".join(lines)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
