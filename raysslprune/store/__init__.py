"""Storage of finished steps: a folder or an object store, with checksums and a lock."""
