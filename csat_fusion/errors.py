"""The root of Longreel's exception tree, and the errors of this package.

The root lives here because ``csat_fusion`` is the one package that every other may import.
"""


class LongreelError(Exception):
    """Anything that Longreel can explain: the message names the value, what was allowed, and where."""


class CompressionError(LongreelError, ValueError):
    """Tokens, times or a budget that a compressor or an attention cannot take."""
