"""What Revenant costs, measured (`revenant bench`)."""
