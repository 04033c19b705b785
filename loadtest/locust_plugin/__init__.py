"""Locust plugin: hooks, the master's coordinator, and the additions to the web page."""
