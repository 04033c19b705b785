"""How true and how cheap load generators are: the same work for each, against a server whose timing is known."""
