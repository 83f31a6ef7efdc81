"""Building blocks that more than one network uses; import the module you need."""
