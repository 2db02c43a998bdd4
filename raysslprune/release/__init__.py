"""Hand out a network or a mask as a folder, and read such a folder as a module."""
