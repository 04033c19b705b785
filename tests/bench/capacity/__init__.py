"""How true the capacity search is: against simulated engines whose capacity is known."""
