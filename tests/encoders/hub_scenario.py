"""Run as a script by `test_openclip_hub.py`: a hub on this machine, and what the encoders do with it.

A process of its own, because the hub's client reads its addresses when it is imported. Prints one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar


class Hub(BaseHTTPRequestHandler):
    """Answers HEAD and GET as the hub does for a large file; `files` is path -> (content, stated hash)."""

    files: ClassVar[dict[str, tuple[bytes, str]]] = {}
    answer: ClassVar[threading.Event] = threading.Event()  # until then nothing is said of what is called "silent"

    def do_HEAD(self) -> None:
        content = self._head()
        del content

    def do_GET(self) -> None:
        self.wfile.write(self._head())

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _head(self) -> bytes:
        if "/silent/" in self.path:
            self.answer.wait()
        content, stated = self.files.get(self.path, (b"", ""))
        self.send_response(200 if stated else 404)
        if stated:
            self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("ETag", f'"{stated}"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content


def main(folder: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    os.environ["HF_HOME"] = str(folder / "hf")
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.pop(variable, None)

    import open_clip
    import torch
    from open_clip import pretrained

    from encoders import describe_model, fetch_model, list_models, load_encoder, require_model
    from encoders.errors import EncoderError
    from encoders.openclip import hub
    from encoders.openclip.architecture import build
    from tests.encoders.models import VIT, pictures, write_config

    open_clip.add_model_config(write_config(folder, "vit"))
    pretrained._PRETRAINED["tiny_vit"] = {
        tag: pretrained._pcfg(hf_hub=f"longreel/{tag}/", quick_gelu=True)
        for tag in ("trained", "damaged", "absent", "late", "silent")
    }
    torch.save(build(VIT, 0).state_dict(), folder / "weights.bin")
    content = (folder / "weights.bin").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    Hub.files["/longreel/trained/resolve/main/open_clip_pytorch_model.bin"] = (content, digest)
    Hub.files["/longreel/damaged/resolve/main/open_clip_pytorch_model.bin"] = (content[:-1] + b"x", digest)
    result: dict[str, Any] = {"bytes": len(content), "digest": digest}

    require_model("openclip:tiny_vit/trained", download=False)
    result["downloaded_when_asked_for"] = describe_model("openclip:tiny_vit/trained").downloaded
    events: list[tuple[str, int, int | None]] = []
    path = fetch_model("openclip:tiny_vit/trained", lambda p: events.append((p.message, p.done_bytes, p.total_bytes)))
    result["fetched"], result["events"] = path, events

    def failure(name: str, call: Callable[..., object] = load_encoder) -> dict[str, Any]:
        started = time.monotonic()
        try:
            call(name)
        except EncoderError as error:
            return {
                "type": type(error).__name__,
                "message": str(error),
                "seconds": time.monotonic() - started,
                "downloaded": describe_model(name).downloaded,
            }
        return {"type": "none"}

    seconds, hub._TIMEOUT_SECONDS = hub._TIMEOUT_SECONDS, 0.5
    result["silent"] = {**failure("openclip:tiny_vit/silent"), "waited_for": seconds}
    hub._TIMEOUT_SECONDS = seconds
    Hub.answer.set()
    result["damaged"] = failure("openclip:tiny_vit/damaged")
    result["absent"] = failure("openclip:tiny_vit/absent")
    server.shutdown()
    server.server_close()
    result["unreachable"] = failure("openclip:tiny_vit/late")
    with load_encoder("openclip:tiny_vit/trained", precision="fp32") as encoder:  # from the cache, without a hub
        result["weights"], result["random"] = encoder.info.weights, encoder.info.random
        result["shape"] = list(encoder.encode(pictures(2)).embedding.shape)
        result["notes"] = encoder.info.notes
    result["listed"] = [entry.name for entry in list_models(downloaded_only=True)]
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True  # what the variable sets when it is there at the start
    result["offline"] = failure("openclip:tiny_vit/late")
    result["required"] = failure("openclip:tiny_vit/late", partial(require_model, download=False))
    require_model("openclip:tiny_vit/trained")  # it is in the cache
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
