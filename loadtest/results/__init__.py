"""Results: mergeable totals of requests, their histograms, the engine's counters, and the run's verdict."""
