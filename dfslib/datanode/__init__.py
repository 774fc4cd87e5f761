"""The datanode: keeps immutable blocks on a volume, and serves them and the files made of them over HTTP."""
