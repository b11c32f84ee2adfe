"""Captions by a vision-language model behind an HTTP address that speaks OpenAI's chat completions."""
