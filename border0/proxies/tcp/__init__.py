"""Any TCP service: bytes are passed on unread."""
