"""A model hub for networks without one: serves a folder of models to the real hub clients."""
