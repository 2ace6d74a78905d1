"""Plans and machines as JSON, and back."""
