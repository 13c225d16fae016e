"""Questions about pictures, each with the answers that are right."""
