"""Training and evaluation: loop, update rule, schedule, checkpoint, crops at test time."""
