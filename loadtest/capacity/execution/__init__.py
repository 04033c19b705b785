"""Execution: run the stages of a search inside Locust and record what client and engine report."""
