"""User-space TCP/IP: packets in, byte streams out; sans-I/O, batches in and out.

`stack.Stack` is the core; `adapters` puts Twisted transports and endpoints on it.
"""
