"""Application-layer proxies: one package per protocol, and how a client is admitted."""
