"""TCP (RFC 9293): one state record per flow (`tcb`), one module per concern around it."""
