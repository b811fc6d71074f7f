"""Nova's own driver and pcmig's, side by side in one cloud."""
