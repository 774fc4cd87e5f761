"""Whether the store of the metadata is what was written, before it is opened, shipped or trusted."""
