"""Blocks as the namenode knows them: where new ones go, which are in use, which are garbage."""
