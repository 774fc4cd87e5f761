"""Bytes on their way between processes: a block to several datanodes, a block from whichever has it."""
