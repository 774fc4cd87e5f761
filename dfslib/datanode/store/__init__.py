"""Blocks on a disk: format, checksums, atomic creation, quarantine, identity of the volume. No network."""
