"""The datanode's HTTP handlers: receiving blocks, sending checked ranges of blocks and files."""
