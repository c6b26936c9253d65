"""The tenant boundary: who the customers are, what they may have, and what they have."""
