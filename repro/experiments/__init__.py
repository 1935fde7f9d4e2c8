"""What can be run: the choices of `experiments/`, and how words of a command line become a configuration."""
