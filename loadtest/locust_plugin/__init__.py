"""Locust plugin: hooks, the master's coordinator, and the tabs of the web page."""
