"""An order taken to its end in the server."""
