"""What is claimed about speed, as commands: `python -m bench`. RESULTS.md has the figures reached."""
