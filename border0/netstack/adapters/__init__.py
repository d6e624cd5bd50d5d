"""The Twisted side of the user-space stack: driver, transport, endpoints."""
