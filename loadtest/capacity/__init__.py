"""Capacity: the highest open-loop request rate at which the SLO is met, with an interval and what limits it."""
