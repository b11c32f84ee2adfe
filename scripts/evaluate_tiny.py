"""Measure everything that a model card says, as JSON files and small plots in one folder.

    model           what it is: size, parameters, card
    retrieval       flickr8k test: text to image and back, beside published anchors; what is found worst
    classification  zero-shot on tinyimagenet val and caltech101 val
    captions        BLEU, ROUGE-L and CIDEr on flickr8k test, beside people; ten examples that nobody picked
    drawings        drawn pictures that are found worst, on a sheet (photographs may not be shown)
    speed           frames a second on so many threads
    moments         moments of real video, beside chance and mean-pooled windows
    curves          the training's log, shortened and plotted

Each part is written when it is done, so a run that was stopped has lost one part at most; --parts does some again.
scripts/make_tiny_card.py makes docs/tiny-model.md of the files.

Examples:

    python scripts/evaluate_tiny.py --packs packs --media media --curves run/curves.jsonl --out docs/tiny-model
    python scripts/evaluate_tiny.py --model openclip:ViT-B-32/laion2b_s34b_b79k --packs packs --out vit-b-32
    python scripts/evaluate_tiny.py --packs packs --out trial --quick            # a few pictures of each, for trying
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from encoders import Encoder
    from encoders.captioning import Captioner

PARTS = ("model", "retrieval", "classification", "captions", "drawings", "speed", "moments", "curves")
LABELLED = ("tinyimagenet", "caltech101")
NEEDS = {"retrieval": "packs", "classification": "packs", "captions": "packs", "moments": "media", "curves": "curves"}
QUICK = {"pictures": 64, "captions": 16, "drawings": 40, "seconds": 0.5, "moments": 5}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the files go")
    parser.add_argument("--model", default="tiny", help="whose card (%(default)s)")
    parser.add_argument("--packs", type=Path, metavar="FOLDER", help="with flickr8k, tinyimagenet and caltech101")
    parser.add_argument("--media", type=Path, metavar="FOLDER", help="folders of videos, each with a moments.jsonl")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="with --media: each query and its answer (JSONL)")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="curves.jsonl of the training")
    parser.add_argument("--parts", help=f"which, of {','.join(PARTS)} (all whose material is given)")
    parser.add_argument("--threads", type=int, default=2, help="to encode with (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the examples and the drawings (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="little of each: to see that it works, not to be quoted")
    options = parser.parse_args(arguments)
    options.words = list(sys.argv[1:] if arguments is None else arguments)
    given = [part for part in PARTS if part not in NEEDS or getattr(options, NEEDS[part]) is not None]
    named = [part.strip() for part in options.parts.split(",")] if options.parts is not None else given
    for part in named:
        if part not in PARTS:
            parser.error(f"--parts {part!r}: must be of {', '.join(PARTS)}")
        if part not in given:
            parser.error(f"--parts {part}: needs --{NEEDS[part]}")
    options.parts = [part for part in PARTS if part in named]
    return options


class Card:
    """Measures parts of one model and writes them; the model is loaded once, and only where a part needs it."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        from benching.tables import versions_line

        self.options, self._stack = options, stack
        self._encoder: Encoder | None = None
        self._captioner: Captioner | None = None
        self._no_captioner = ""
        self._made_by = {"command": command(options.words), "versions": versions_line(), "quick": options.quick}

    def run(self) -> None:
        for part in self.options.parts:
            say(f"{part}")
            value = getattr(self, part)()
            path = self.options.out / f"{part}.json"
            text = json.dumps(
                tidy({**self._made_by, "model_name": self.options.model, **value}), ensure_ascii=False, indent=1
            )
            path.write_text(text + "\n", encoding="utf-8")
            say(f"wrote {path}")

    def model(self) -> dict[str, Any]:
        from dataclasses import asdict

        from encoders import describe_model

        described = describe_model(self.options.model)
        info = self.encoder.info
        known = asdict(described) | {
            "path": None,
            "preprocess": dict(described.preprocess),
            "card": info.card.as_dict(),
        }
        known["card"].pop("source")  # where the file lies on this machine
        return known | {
            "fingerprint": info.fingerprint,
            "weights": info.weights,
            "grid": list(info.grid),
            "token_width": info.token_width,
        }

    def retrieval(self) -> dict[str, Any]:
        from scripts.carding.parts import retrieval

        return retrieval(self.encoder, self._pack("flickr8k"), "test", self._few("pictures"), stepper())

    def classification(self) -> dict[str, Any]:
        from scripts.carding.parts import classification

        limit = self._few("pictures")
        return {"packs": [classification(self.encoder, self._pack(n), "val", limit, stepper()) for n in LABELLED]}

    def captions(self) -> dict[str, Any]:
        from scripts.carding.parts import captions

        if self.captioner is None:
            return {"unavailable": self._no_captioner}
        limit, seed = self._few("captions"), self.options.seed
        return captions(self.captioner, self._pack("flickr8k"), "test", limit, seed, stepper())

    def drawings(self) -> dict[str, Any]:
        from scripts.carding.drawings import drawings

        count = self._few("drawings") or 400
        return drawings(self.encoder, self.captioner, self.options.out / "drawings.png", count, self.options.seed)

    def speed(self) -> dict[str, Any]:
        from scripts.carding.parts import speed

        return speed(self.encoder, float(self._few("seconds") or 5.0))

    def moments(self) -> dict[str, Any]:
        from scripts.carding.parts import moments

        options = self.options
        few = self._few("moments")
        found = moments(options.model, options.media, device=options.device, limit=few, step=stepper())
        answers = found.pop("answers")
        if options.answers is not None:
            lines = [json.dumps(tidy(answer), ensure_ascii=False) + "\n" for answer in answers]
            options.answers.write_text("".join(lines), encoding="utf-8")
            say(f"wrote {options.answers}")
        return found

    def curves(self) -> dict[str, Any]:
        from scripts.carding.curves import plot_curves, read_curves

        found = read_curves(self.options.curves)
        return {**found, "plots": plot_curves(found, self.options.out)}

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            from encoders import load_encoder

            options = self.options
            loaded = load_encoder(options.model, device=options.device, threads=options.threads)
            self._encoder = self._stack.enter_context(loaded)
        return self._encoder

    @property
    def captioner(self) -> Captioner | None:
        """``None`` for a model that has no caption decoder; why is in ``_no_captioner``."""
        if self._captioner is None and not self._no_captioner:
            from encoders.captioning import load_captioner
            from encoders.errors import CaptionerUnavailable
            from jobs.cli.evaluate_pack import captioner_name
            from jobs.errors import UsageError

            options = self.options
            try:
                name = captioner_name(options.model)
                loaded = load_captioner(name, device=options.device, threads=options.threads)
            except (UsageError, CaptionerUnavailable) as error:
                self._no_captioner = str(error)
                return None
            self._captioner = self._stack.enter_context(loaded)
        return self._captioner

    def _pack(self, name: str) -> Any:
        from pipeline.evaluation.packs import ImageTextPack

        return ImageTextPack.open(self.options.packs, name)

    def _few(self, what: str) -> Any:
        return QUICK[what] if self.options.quick else None


def command(arguments: list[str]) -> str:
    """The command, with the last part of each path alone: what lies where on a machine is nobody's business."""
    words = [Path(word).name if Path(word).is_absolute() or word.startswith("..") else word for word in arguments]
    return f"python scripts/{Path(__file__).name} {shlex.join(words)}".rstrip()


def tidy(value: Any) -> Any:
    """For JSON: numbers of four decimals, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): tidy(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def stepper() -> Callable[[str, float, float | None], None]:
    """Says how far a kind of work is, about ten times."""
    told: dict[str, int] = {}

    def step(what: str, done: float, total: float | None) -> None:
        tenth = int(10 * done / total) if total else 0
        if told.get(what, -1) < tenth:
            told[what] = tenth
            say(f"  {what}: {done:g}{f' of {total:g}' if total else ''}")

    return step


def say(message: str) -> None:
    from benching.tables import progress

    progress(message)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    from csat_fusion.errors import LongreelError

    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            Card(options, stack).run()
    except LongreelError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
