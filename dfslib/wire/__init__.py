"""The protocol between all parts: routes, messages, codecs, its version. No I/O. docs/protocol.md tells it."""
