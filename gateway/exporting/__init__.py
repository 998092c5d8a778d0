"""What the gateway's own stores put into a person's export package, read page by page while it is written."""
