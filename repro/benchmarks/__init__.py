"""Our speed beside that of others, measured side by side, and the targets of `repro.bench`."""
