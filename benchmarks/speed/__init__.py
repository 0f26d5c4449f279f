"""How fast explanations are, side by side with the peers."""
