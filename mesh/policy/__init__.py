"""Who a client is, what it may do, and how the mesh's own parts prove themselves to each other. No I/O but the secret file."""
