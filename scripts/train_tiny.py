"""Train the bundled model `tiny`: three stages, each resumable after a kill, on two processor cores in a few hours.

    sight   the image tower names what it sees (labelled photographs, and the words of sentences)
    words   pictures and sentences in one space; the decoder writes what a picture shows
    video   the decoder reads merged tokens of many frames with their times, of clips made on the fly

The folder of packs holds flickr8k, tinyimagenet and caltech101 (.npz with .jsonl.gz, as docs/evaluation.md describes).
In the output folder come a checkpoint for each stage, curves.jsonl, and at the end tiny.safetensors. The same command
goes on where a killed run stopped; steps see what they would have seen.

Exit codes: 0 done, 1 what was given does not fit (said on stderr), 2 wrong options, 130 stopped by Ctrl-C.

Examples:

    python scripts/train_tiny.py --packs packs --out run
    python scripts/train_tiny.py --packs packs --out run --stages video      # this one alone, after the others
    python scripts/train_tiny.py --packs packs --out trial --recipe toy      # a minute, to see that everything works
    python scripts/train_tiny.py --packs packs --learn-vocabulary new.bpe.gz   # for weights yet to come
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    import torch

    from scripts.training.loop import Plan
    from scripts.training.sight import SightOptions
    from scripts.training.video import VideoOptions
    from scripts.training.words import WordsOptions

STAGES = ("sight", "words", "video")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, seed and packs aside.

    ``clips`` and ``clips_check`` are made, of ``frames`` frames each; photographs are seen in ``views``. ``most``
    bounds the pictures of a class, and four times that those with sentences (None: all). ``drop_path`` is the
    probability that the last block of the image tower is left out, by stage.
    """

    sight: Plan
    words: Plan
    video: Plan
    sight_options: SightOptions
    words_options: WordsOptions
    video_options: VideoOptions
    clips: int = 6000
    clips_check: int = 400
    frames: int = 8
    views: int = 4
    most: int | None = None
    drop_path: dict[str, float] = field(default_factory=lambda: {"sight": 0.05, "words": 0.1})


def recipes() -> dict[str, Recipe]:
    """The recipes by name."""
    from scripts.training.loop import Plan
    from scripts.training.sight import SightOptions
    from scripts.training.video import VideoOptions
    from scripts.training.words import WordsOptions

    full = Recipe(
        sight=Plan(6000, 0.15, "sgd", 2e-4, 0.08, 0.999, clip_norm=5.0, save_steps=200, check_steps=1000),
        words=Plan(1800, 1e-3, "adamw", 0.1, 0.05, 0.9985, save_steps=100, check_steps=200),
        video=Plan(1200, 5e-4, "adamw", 0.05, 0.05, 0.998, save_steps=100, check_steps=250),
        sight_options=SightOptions(),
        words_options=WordsOptions(),
        video_options=VideoOptions(),
    )
    quick: dict[str, Any] = {"warmup": 0.2, "average": 0.9, "save_steps": 2, "log_steps": 1, "check_steps": 2}
    toy = Recipe(
        sight=Plan(4, 0.05, "sgd", 2e-4, **quick),
        words=Plan(4, 1e-3, "adamw", 0.1, **quick),
        video=Plan(4, 5e-4, "adamw", 0.05, **quick),
        sight_options=SightOptions(labelled=4, sentences=2, first_side=32, side=48, fewest=1),
        words_options=WordsOptions(sentences=3, labelled=2, drawn=2, drawn_bank=6, first_side=32, side=48),
        video_options=VideoOptions(clips=2, stills=2, budgets=(9, 18), check_budget=18),
        clips=12,
        clips_check=12,
        frames=4,
        views=2,
        most=8,
    )
    return {"full": full, "toy": toy}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--packs", required=True, type=Path, metavar="FOLDER", help="the packs of photographs")
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--out", type=Path, metavar="FOLDER", help="checkpoints, curves and weights")
    made.add_argument(
        "--learn-vocabulary", type=Path, metavar="FILE", help="write the tokenizer's merges (.bpe.gz), train nothing"
    )
    parser.add_argument("--recipe", default="full", choices=("full", "toy"), help="%(default)s unless given")
    parser.add_argument("--stages", default=",".join(STAGES), help="which to train, in order (%(default)s)")
    parser.add_argument("--seed", type=_count, default=0)
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda:1 (%(default)s)")
    parser.add_argument("--threads", type=_count, default=0, help="processor threads, 0 for all (%(default)s)")
    options = parser.parse_args(arguments)
    named = [stage.strip() for stage in options.stages.split(",") if stage.strip()]
    if not named or any(stage not in STAGES for stage in named):
        parser.error(f"--stages {options.stages!r}: name some of {', '.join(STAGES)}")
    options.stages = sorted(set(named), key=STAGES.index)
    return options


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value}: a whole number from 0 is allowed")
    return value


class Training:
    """The stages over one model and one folder of packs.

    Raises:
        TrainingError: for a device that is not there.
    """

    def __init__(self, options: argparse.Namespace, recipe: Recipe) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        from scripts.training.model import CONFIG

        self.options, self.recipe = options, recipe
        self.device = find_device(options.device)
        tokenizer = SimpleTokenizer(str(CONFIG.with_name("tiny.bpe.gz")), context_length=32)
        self.tokenize = lambda texts: tokenizer(texts)
        self._read: dict[str, Any] = {}

    def run(self, stages: list[str]) -> None:
        import torch

        for stage in stages:
            tell(f"stage {stage} on {self.device}")
            with torch.random.fork_rng(devices=[]):  # heads and whatever else a stage begins with come from the seed
                torch.manual_seed(self.options.seed)
                network = getattr(self, stage)()
            if stage == STAGES[-1]:
                from scripts.training.model import CONFIG, write_weights

                path = self.options.out / "tiny.safetensors"
                write_weights(network.decoder.model, path)
                tell(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
                tell(f"to ship it: copy it to {CONFIG.with_name(path.name)}, then run python -m encoders.bundled.files")

    def sight(self) -> torch.nn.Module:
        return self._train(self._sight_stage(), self.recipe.sight)

    def words(self) -> torch.nn.Module:
        return self._train(self._words_stage(), self.recipe.words)

    def video(self) -> torch.nn.Module:
        from scripts.training.bank import clip_bank, still_bank
        from scripts.training.video import VideoStage

        recipe, out, seed = self.recipe, self.options.out, self.options.seed
        words = self._words_stage()
        load_average(words.network, out, "words")
        model = words.network.model.eval().to(self.device)
        tower, size = model.visual, recipe.words_options.side
        train, check = self._photographs("train"), self._photographs("val")
        made = {"frames": recipe.frames, "size": size, "tell": tell}
        clips = clip_bank(out / "clips.bank", tower, train, recipe.clips, seed=seed + 1, **made)
        clips_check = clip_bank(out / "clips_check.bank", tower, check, recipe.clips_check, seed=seed + 2, **made)
        stills = still_bank(out / "stills.bank", tower, train, recipe.views, size, seed + 3, tell)
        stills_check = still_bank(out / "stills_check.bank", tower, check, 1, size, seed + 4, tell)
        stage = VideoStage(model, clips, stills, clips_check, stills_check, self.tokenize, recipe.video_options)
        return self._train(stage, recipe.video)

    def _train(self, stage: Any, plan: Plan) -> torch.nn.Module:
        from scripts.training.loop import train

        stage.network.to(self.device)
        return train(stage, plan, self.options.out, self.options.seed, tell)

    def _sight_stage(self, drop_path: float | None = None) -> Any:
        import torch

        from scripts.training.model import make_model
        from scripts.training.sight import SightStage

        recipe = self.recipe
        self.model = make_model(self.options.seed, recipe.drop_path["sight"] if drop_path is None else drop_path)
        tower = self.model.visual.trunk.to(memory_format=torch.channels_last)
        return SightStage(
            tower,
            self._labelled("train"),
            self._photographs("train"),
            self._labelled("val"),
            self._photographs("val"),
            recipe.sight.steps,
            recipe.sight_options,
        )

    def _words_stage(self) -> Any:
        from scripts.training.words import WordsStage

        recipe = self.recipe
        sight = self._sight_stage(recipe.drop_path["words"])
        load_average(sight.network, self.options.out, "sight")
        return WordsStage(
            self.model,
            sight,
            self._labelled("train"),
            self._photographs("train"),
            self._photographs("val"),
            self.tokenize,
            recipe.words.steps,
            self.options.seed,
            recipe.words_options,
        )

    def _labelled(self, split: str) -> Any:
        from scripts.training.photographs import read_labelled

        return self._once(f"labelled {split}", lambda: read_labelled(self.options.packs, split, 64, self.recipe.most))

    def _photographs(self, split: str) -> Any:
        from scripts.training.photographs import read_sentences

        most = None if self.recipe.most is None else 4 * self.recipe.most
        return self._once(f"sentences {split}", lambda: read_sentences(self.options.packs, split, 96, most))

    def _once(self, key: str, read: Any) -> Any:
        if key not in self._read:
            tell(f"reading {key}")
            self._read[key] = read()
        return self._read[key]


def load_average(network: torch.nn.Module, folder: Path, stage: str) -> None:
    """Take the averaged weights of a finished stage.

    Raises:
        TrainingError: where that stage has not been trained to its end, or with another network.
    """
    from scripts.training.loop import TrainingError, load_weights, read_state

    path = folder / f"{stage}.pt"
    if not path.is_file():
        raise TrainingError(f"{path} is not there: train stage {stage} first")
    state = read_state(path, "plan", "step", "average")
    if state["step"] < state["plan"]["steps"]:
        raise TrainingError(
            f"stage {stage} in {path} is at step {state['step']} of {state['plan']['steps']}: finish it"
        )
    load_weights(network, state["average"], path)


def find_device(name: str) -> torch.device:
    """The device of that name; a GPU where there is one for ``auto``.

    Raises:
        TrainingError: where torch has no such device here.
    """
    import torch

    from scripts.training.loop import TrainingError

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).partition("\n")[0]
        raise TrainingError(f"--device {name}: not here (cpu and cuda or cuda:N are allowed): {first}") from error
    return device


def learn_vocabulary(packs: Path, path: Path) -> None:
    """Learn the merges of a tokenizer from everything that is said while training, and write them.

    Raises:
        TrainingError: where the folder lacks the packs.
    """
    from scripts.training.vocabulary import SIZE, learn_merges, training_sentences, write_merges

    texts = training_sentences(packs)
    tell(f"learning a vocabulary of {SIZE} from {len(texts)} sentences")
    merges = learn_merges(texts, SIZE)
    write_merges(merges, path)
    tell(f"wrote {path}: {len(merges)} merges")


def tell(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return _main(options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 128 + signal.SIGINT


def _main(options: argparse.Namespace) -> int:
    import cv2
    import torch

    from csat_fusion.errors import LongreelError

    cv2.setNumThreads(1)  # pictures are small: its threads would only stand in the way of torch's
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        if options.learn_vocabulary is not None:
            learn_vocabulary(options.packs, options.learn_vocabulary)
        else:
            options.out.mkdir(parents=True, exist_ok=True)
            Training(options, recipes()[options.recipe]).run(options.stages)
    except (LongreelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
