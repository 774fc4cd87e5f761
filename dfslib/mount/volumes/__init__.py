"""Docker volumes that are directories of the tree: the volume plugin of a host."""
