"""Mutants: small faults put into the code one at a time; the tests that should notice are run on each."""
