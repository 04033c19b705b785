"""Search: choose the next rate, judge each stage, and estimate the capacity with its interval."""
