"""Readings over HTTP: the service, its page and its limits. Needs `threefold[serve]`, never torch."""
