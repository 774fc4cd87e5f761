"""The cluster's level: what may be written and demanded, and how an operator raises it after an upgrade."""
