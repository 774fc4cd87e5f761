"""The mount: the tree as a local directory, through FUSE."""
