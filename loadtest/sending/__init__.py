"""Sending: due times of requests, and the workers and users that send them."""
