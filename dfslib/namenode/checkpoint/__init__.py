"""The metadata's copies on the datanodes: made, kept, and restored from."""
