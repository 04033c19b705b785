"""vLLM's side: `python3 -m speed_test.vllm_side WORK RESULT`.

Measures what `vllm bench throughput` does (`LLM.generate` on all prompts at once, every token detokenized), but on the
same prompts as the other side, and repeatedly in one engine. The prefix cache is off, because repeats use the same
prompts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from speed_test.side_result import SideResult, save
from speed_test.work import Work


def run(work: Work) -> SideResult:
    """Load the model, warm up with the whole work, measure."""
    import vllm  # noqa: PLC0415  # seconds
    from vllm import LLM, SamplingParams, TokensPrompt  # noqa: PLC0415  # as above
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415  # as above
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415  # as above

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(add_help=False))
    flags = [
        f"--model={work.model}",
        f"--seed={work.seed}",
        f"--load-format={work.load_format}",
        "--no-enable-prefix-caching",
    ]
    if work.quantization:
        flags.append(f"--quantization={work.quantization}")
    args, _ = parser.parse_known_args([*flags, *work.engine_flags])
    llm = LLM.from_engine_args(EngineArgs.from_cli_args(args))
    prompts = [TokensPrompt(prompt_token_ids=request.prompt) for request in work.requests]
    # Both sides sample from the whole distribution: temperature 1, no top-p.
    params = [
        SamplingParams(temperature=1.0, top_p=1.0, ignore_eos=True, max_tokens=request.output_len)
        for request in work.requests
    ]
    seconds = []
    for round_ in range(work.repeats + 1):
        start = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        took = time.perf_counter() - start
        made = sum(len(output.outputs[0].token_ids) for output in outputs)
        if made != work.output_tokens:
            raise RuntimeError(f"vLLM made {made} tokens, {work.output_tokens} were asked for")
        print(f"throughput: vllm {'warm-up' if not round_ else f'repeat {round_}'}: {took:.3f} s", flush=True)
        if round_:
            seconds.append(took)
    config = llm.llm_engine.vllm_config
    how = [
        f"max_num_seqs {config.scheduler_config.max_num_seqs}",
        "eager" if config.model_config.enforce_eager else "compiled, CUDA graphs",
    ]
    return SideResult("vllm", vllm.__version__, ", ".join(how), seconds)


if __name__ == "__main__":
    save(run(Work.load(Path(sys.argv[1]))), Path(sys.argv[2]))
