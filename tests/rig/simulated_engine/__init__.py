"""The simulated inference engine, served over HTTP in real time, with known capacity and bottleneck."""
