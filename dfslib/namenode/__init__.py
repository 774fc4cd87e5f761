"""The namenode: owns every byte of metadata, fans writes out, redirects reads."""
