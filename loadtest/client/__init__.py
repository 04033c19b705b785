"""Streaming HTTP client: captures bytes with arrival times, and reads them after the stream has ended."""
