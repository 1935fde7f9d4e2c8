"""Images: where they come from, how they are packed, how they are varied in training."""
