"""Model delivery: brings a model from a hub onto the volume that the engine reads, or says why it could not."""
