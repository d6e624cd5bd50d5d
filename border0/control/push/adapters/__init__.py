"""The Twisted side of push: WebSockets over TLS."""
