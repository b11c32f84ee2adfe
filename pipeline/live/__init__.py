"""Live streams: from the frames of a camera that never ends to windows that are searched and captioned."""
