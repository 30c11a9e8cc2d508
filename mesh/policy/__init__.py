"""Identity and permissions of clients, and authentication between the nodes of a mesh. No I/O except for files of
secrets and verifiers."""
