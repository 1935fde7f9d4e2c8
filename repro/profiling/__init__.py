"""Where the time of a training step goes: by layer, phase and kernel, against the ceilings of a device."""
