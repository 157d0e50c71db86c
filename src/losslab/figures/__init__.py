"""Pictures of what networks and losses say."""
