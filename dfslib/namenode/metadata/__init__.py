"""An ordered key-value store with transactions, and its engines. Knows no file operation."""
