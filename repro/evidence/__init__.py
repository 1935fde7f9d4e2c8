"""Evidence: comparisons of records with their statistics, and the claims of the paper beside them, as numbers."""
