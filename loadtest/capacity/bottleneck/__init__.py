"""Bottleneck: what limits the engine at the edge of its capacity, and the setting to try next."""
