"""Planner: the number of hosts that a recorded load needs, from one host's measured capacity."""
