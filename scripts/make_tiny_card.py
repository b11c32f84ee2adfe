"""Fills the tables of docs/tiny-model.md from the JSON files in docs/tiny-model/, which scripts/evaluate_tiny.py wrote.

python scripts/make_tiny_card.py           fill them
python scripts/make_tiny_card.py --check   fail when they are not what the files say
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "tiny-model.md", metavar="FILE", help="the card")
    options = parser.parse_args(arguments)
    from csat_fusion.errors import LongreelError
    from scripts.carding.page import filled

    page: Path = options.page
    try:
        before = page.read_text(encoding="utf-8")
        after = filled(before, page.with_suffix(""), page.stem)
    except (LongreelError, OSError) as error:
        print(f"{page}: {error}", file=sys.stderr)
        return 2
    if not options.check:
        page.write_text(after, encoding="utf-8")
    elif after != before:
        print(f"{page} is not what its files say: run python scripts/make_tiny_card.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
