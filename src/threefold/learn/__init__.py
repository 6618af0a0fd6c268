"""All of torch: targets, mixing, augmentation, losses, heads, networks, optimisers, the loop."""
