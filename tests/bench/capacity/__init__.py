"""Accuracy of the capacity search, against simulated engines of known capacity."""
