"""The Twisted side that has files of its own: TLS to the upstream, dialling it."""
