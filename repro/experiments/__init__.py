"""The choices of `experiments/`, and the way from the words of a command line to a configuration."""
