"""The entry points that act: flows, the service around them, and the `twin` command."""
