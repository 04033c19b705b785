"""Real servers under the load test: token counts of the client beside the server's own."""
