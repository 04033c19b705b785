"""Results: mergeable totals of requests, their histograms, the engine's counters, and the verdict on a run."""
