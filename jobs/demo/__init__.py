"""The demo: short films drawn here, indexed, asked for, and shown beside the truth."""
