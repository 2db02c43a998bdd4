"""A network or a mask as a folder for others, and such a folder as a module."""
