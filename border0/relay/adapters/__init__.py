"""The Twisted side of the relay: WebSockets over TLS, through proxies too."""
