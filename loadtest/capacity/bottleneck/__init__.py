"""Bottleneck: what limits the engine at its capacity, and the setting to try next."""
