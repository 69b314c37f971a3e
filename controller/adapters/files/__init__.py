"""The operator's own files: settings, inventories, experiments, runs. Read strictly, written atomically."""
