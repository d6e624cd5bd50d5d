"""Twisted transports shared by the proxies."""
