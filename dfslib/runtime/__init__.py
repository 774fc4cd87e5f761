"""What a process needs around its work: logs, clock and ids, its interpreter, serving until told to stop."""
