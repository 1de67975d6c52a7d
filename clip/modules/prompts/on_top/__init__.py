"""Methods that put a head or a loss on top of the prompts of another method."""
