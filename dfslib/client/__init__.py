"""What `HttpNameNode`, `HttpDataNode` and the command line share. Knows the wire, and no server's insides."""
