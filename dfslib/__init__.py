"""DFS: a distributed file system over HTTP. docs/architecture.md is the map of this package."""
