"""The HTTP API: one module a resource; a view parses, calls, and renders."""
