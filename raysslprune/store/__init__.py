"""Where finished steps live: a folder or an object store, with checksums and a lock."""
