"""The time of a training step by layer, phase and kernel, against the ceilings of a device."""
