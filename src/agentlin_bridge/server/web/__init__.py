"""The embedded server over HTTP: operations, keys, streams, limits."""
