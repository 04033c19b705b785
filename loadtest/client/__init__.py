"""Streaming HTTP client: capture bytes with arrival times, parse them after the stream has ended."""
