"""Accuracy and cost of load generators: the same work for each, against a server with known timing."""
