"""Readings over HTTP: the service, its page and its limits. Needs the extra `serve`, never torch."""
