"""What judges every model alike: moments of video against described ones, and image-text packs.

Import the modules: ``moments`` (file formats), ``scores`` (our measures), ``qvhighlights`` (those of the QVHighlights
evaluator, under its own names), ``library`` and ``sweep`` (a library asked and judged), ``packs``, ``retrieval`` and
``captions``.
"""
