"""What happens on a slice of the journal, and on a question over HTTP."""
