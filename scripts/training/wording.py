"""Sentences for labelled pictures: templates, and the everyday words for what a label names."""

from __future__ import annotations

import numpy as np

__all__ = ["EVERYDAY", "TEMPLATES", "label_sentence", "label_sentences"]

TEMPLATES = (
    "{}",
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a close up of {}",
    "this is {}",
    "there is {}",
    "{} can be seen",
    "a blurry photo of {}",
    "a small photo of {}",
    "{} in the picture",
    "we see {}",
)

# what people call what the label names exactly
EVERYDAY: dict[str, tuple[str, ...]] = {
    "dog": (
        "chihuahua",
        "yorkshire terrier",
        "golden retriever",
        "labrador retriever",
        "german shepherd",
        "standard poodle",
        "dalmatian",
    ),
    "cat": ("tabby", "persian cat", "egyptian cat", "wild cat"),
    "car": ("beach wagon", "convertible", "limousine", "sports car", "car seen from the side"),
    "van": ("moving van", "police van"),
    "bus": ("school bus", "trolleybus"),
    "train": ("bullet train", "freight car"),
    "bottle": ("beer bottle", "pop bottle", "pill bottle", "water jug"),
    "frog": ("bullfrog", "tailed frog"),
    "bird": ("goose", "black stork", "king penguin", "albatross", "flamingo", "ibis", "pigeon", "emu", "rooster"),
    "butterfly": ("monarch", "sulphur butterfly"),
    "insect": ("ladybug", "fly", "bee", "grasshopper", "cockroach", "mantis", "dragonfly", "mayfly"),
    "spider": ("black widow", "tarantula"),
    "fish": ("goldfish", "bass fish"),
    "monkey": ("orangutan", "chimpanzee", "baboon"),
    "bear": ("brown bear",),
    "pig": ("hog",),
    "sheep": ("bighorn",),
    "camel": ("arabian camel",),
    "elephant": ("african elephant",),
    "boat": ("gondola", "lifeboat", "ferry boat", "ketch sailing boat", "schooner sailing ship"),
    "ball": ("basketball", "rugby ball", "volleyball", "soccer ball"),
    "bridge": ("steel arch bridge", "suspension bridge", "viaduct"),
    "fence": ("picket fence",),
    "table": ("dining table", "desk"),
    "chair": ("rocking chair", "windsor chair"),
    "phone": ("pay-phone", "cellphone"),
    "keyboard": ("computer keyboard",),
    "computer": ("laptop", "computer keyboard"),
    "coat": ("fur coat", "cardigan"),
    "bag": ("backpack",),
    "hat": ("sombrero",),
    "coffee": ("espresso",),
    "cup of coffee": ("espresso",),
    "beach": ("seashore",),
    "lake": ("lakeside",),
    "mountain": ("alp",),
    "rock": ("cliff",),
    "food": ("mashed potato", "meat loaf", "potpie", "pizza", "guacamole"),
    "fruit": ("orange", "lemon", "banana", "pomegranate", "strawberry"),
    "flower": ("sunflower", "lotus", "water lilly"),
    "tree": ("bonsai", "joshua tree"),
    "lamp": ("lampshade", "chandelier"),
    "tower": ("water tower", "beacon", "minaret", "obelisk"),
    "motorcycle": ("motorbike",),
    "person": ("face",),
    "face of a person": ("face",),
    "teddy bear": ("teddy",),
    "ship": ("schooner sailing ship", "ketch sailing boat"),
    "guitar": ("electric guitar",),
    "piano": ("grand piano",),
    "lizard": ("european fire salamander",),
    "snake": ("boa constrictor",),
    "alligator": ("american alligator", "crocodile"),
}

_BY_LABEL: dict[str, list[str]] = {}
for _word, _labels in EVERYDAY.items():
    for _label in _labels:
        _BY_LABEL.setdefault(_label, []).append(_word)


def label_sentence(names: list[str], chance: np.random.Generator) -> str:
    """A sentence for a picture of a class: a template around its first name, a synonym or an everyday word."""
    everyday = _BY_LABEL.get(names[0], [])
    draw = chance.random()
    if everyday and draw < 0.35:
        name = everyday[int(chance.integers(len(everyday)))]
    elif len(names) > 1 and draw < 0.5:
        name = names[1 + int(chance.integers(len(names) - 1))]
    else:
        name = names[0]
    template = TEMPLATES[int(chance.integers(len(TEMPLATES)))]
    return template.format(name if template == "{}" and chance.random() < 0.5 else _with_article(name))


def label_sentences(names: list[str]) -> list[str]:
    """Every sentence that :func:`label_sentence` can give, for a vocabulary."""
    words = [*names, *_BY_LABEL.get(names[0], [])]
    return [template.format(_with_article(word)) for word in words for template in TEMPLATES] + words


def _with_article(name: str) -> str:
    if name.endswith("s") and not name.endswith("ss"):
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
