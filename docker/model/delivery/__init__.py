"""Model delivery: downloads a model from a hub onto the volume that the engine reads."""
