"""What the records say, as numbers: comparisons with their statistics, and the claims of the paper beside them."""
