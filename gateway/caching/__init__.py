"""What is kept at hand so that it need not be fetched again; nothing here is the only copy of anything."""
