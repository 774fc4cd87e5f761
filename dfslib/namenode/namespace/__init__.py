"""POSIX's rules for a tree of files, on a transaction. A file a verb; no I/O, no clock, no randomness."""
