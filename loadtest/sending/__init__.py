"""Sending: when requests are due, and the workers and users that send them."""
