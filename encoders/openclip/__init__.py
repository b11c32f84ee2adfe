"""OpenCLIP models: ``openclip:ARCH/PRETRAINED``. The only place that imports open_clip."""
