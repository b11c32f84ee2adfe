"""Documentation that is made from the code says what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_reference.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_names_real_commands() -> None:
    from jobs.cli.main import cli

    known = set(cli.list_commands(None))  # type: ignore[arg-type]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^longreel (\w+)", text, flags=re.MULTILINE))
    assert named
    assert named <= known


def test_pages_that_are_named_exist() -> None:
    named: set[str] = set()
    for folder in ("configs", "csat_fusion", "encoders", "jobs", "pipeline", "scripts", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".yaml", ".md", ".sh"}:
                named |= set(re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8")))
    assert named
    assert {page for page in named if not (ROOT / page).exists()} == set()


def test_no_figure_is_left_open() -> None:
    assert "MEASURED_" not in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_readme_runs_and_lists_every_name() -> None:
    import csat_fusion

    text = (ROOT / "csat_fusion" / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    exec(compile(found[1], "README.md", "exec"), {})
    tables = ("COMPRESSORS", "ATTENTIONS", "MEASUREMENTS", "DICTIONARIES", "RECOVERIES", "MEMORIES")
    for table in tables:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{table}`"))
        listed = re.findall(r"`([\w-]+)`", row.split("|")[2])
        named = list(getattr(csat_fusion, table))
        assert [name for name in listed if name in named] == named, table
