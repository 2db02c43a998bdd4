"""Export a network or a mask as a folder, and load such a folder as a module."""
