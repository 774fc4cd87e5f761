"""Brings every block back to its number of copies: a pure plan, and a worker that has it carried out."""
