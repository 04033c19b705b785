"""Simulation: an engine with continuous batching, in virtual time."""
