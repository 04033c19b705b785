"""Load generator for OpenAI-compatible servers: Locust users with a streaming client of exact time stamps.

Data flow: options -> workload (requests) and arrivals (due times) -> client (bytes and time stamps) -> record (one
request) -> totals (mergeable histograms) -> web page, metrics and report.
"""
