"""The fleet controller with real node proxies in front of agents that only count."""
