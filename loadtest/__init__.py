"""Load generator for OpenAI-compatible servers: Locust users with a streaming client whose times can be trusted.

The data's way: options -> workload (what to send) and arrivals (when) -> client (bytes and time stamps) ->
record (one request) -> store (mergeable histograms) -> web, metrics and report.
"""
