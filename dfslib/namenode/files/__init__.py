"""What the HTTP interface does with files: receive their bytes, redirect to them, change the tree."""
