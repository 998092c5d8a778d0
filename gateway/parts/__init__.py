"""The gateway's background parts, each a loop that stops when told; a process loads only its own."""
