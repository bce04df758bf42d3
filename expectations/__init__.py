"""Great Expectations: what landed is checked, and the summaries are compared with their source."""
