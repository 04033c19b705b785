"""Twin: a simulated engine fitted to the measured one, and the capacity that it predicts."""
