"""The small model that comes with Longreel: ``tiny``, for trials, tests and machines without a network."""
