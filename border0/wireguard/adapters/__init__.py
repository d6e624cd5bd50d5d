"""WireGuard's Twisted side: the batching UDP socket and the stored clock."""
