"""Who a client is, what it may do, and how the nodes of one mesh prove themselves. No I/O but the secret file."""
