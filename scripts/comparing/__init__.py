"""The learning comparison of cross-attentions; scripts/compare_fusion.py runs it."""
