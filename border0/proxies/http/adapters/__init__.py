"""HTTP's Twisted side: connections, upstreams, files."""
