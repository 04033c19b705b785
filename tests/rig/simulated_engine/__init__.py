"""The simulated inference engine, served over HTTP in real time: its capacity is known, and the reason for it."""
