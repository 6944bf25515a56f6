"""The pages say what exists: links, anchors, scripts, modules, options, the sections code cites."""

import ast
import importlib.util
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "data/*.md", "tests/**/*.md")
PAGES = sorted(path for pattern in FOLDERS for path in REPOSITORY.glob(pattern))
CODE = ("*.py", "benchmarks/**/*.py", "datasets/**/*.py", "networks/**/*.py", "tests/**/*.py")
MODULES = sorted(path for pattern in (*CODE, "utils/**/*.py") for path in REPOSITORY.glob(pattern))

FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```")
OTHERS = ("--nproc", "--nnodes", "--node_rank", "--master", "--rdzv", "--signal")
"""Options of torchrun and SLURM begin so."""


def name_of(path):
    return str(path.relative_to(REPOSITORY))


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


@cache
def visible(page):
    """A page without its comments, which may speak of what does not exist yet."""
    return re.sub(r"(?s)<!--.*?-->", "", page.read_text())


def prose(page):
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", visible(page)))


@cache
def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    count = Counter()
    for heading in re.findall(r"(?m)^#+ (.+)$", FENCE.sub("", visible(page))):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        count[re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")] += 1
    return {f"{slug}-{n}" if n else slug for slug in count for n in range(count[slug])}


def broken_links(page):
    """Relative links that lead nowhere: to no file, or to no heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


def commands(page):
    """What pages tell to run, in fences and inline: words after `python`, `torchrun` or `bash`."""
    text = visible(page).replace("\\\n", " ")
    return re.findall(r"\b(?:python3?|torchrun|bash)\s+([^`\n]+)", text)


def is_module(name):
    if (REPOSITORY / name.split(".")[0]).is_dir():
        path = REPOSITORY / name.replace(".", "/")
        return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    return importlib.util.find_spec(name) is not None


def unknown_commands(page):
    """Scripts and modules in commands that do not exist."""
    for command in commands(page):
        words = command.split("#")[0].split()
        for before, word in zip(["", *words], words, strict=False):
            known = True
            if before == "-m" and re.fullmatch(r"[\w.]+", word) and words[0] == "-m":
                known = is_module(word)
            elif re.fullmatch(r"[\w./]+\.(py|sh)", word):
                known = (REPOSITORY / word).is_file()
            if not known:
                yield command


@cache
def source():
    """All code but this file, which names what does not exist."""
    return "\n".join(path.read_text() for path in MODULES if path != Path(__file__))


def unknown_options(page):
    """Options in commands of this project, and in inline code, that no source names."""
    inline = re.findall(r"`(--[^`]+)`", visible(page))
    for text in [*(c for c in commands(page) if ".py" in c or c.startswith("-m")), *inline]:
        for option in re.findall(r"(?<![\w-])--\w[\w-]*(?![\w*-])", text):
            # datasets/roots.py makes its options of pairs (name, help).
            named = f'"{option}"' in source() or f'("{option[2:]}", "' in source()
            if not named and not option.startswith(OTHERS):
                yield option


@pages
def test_relative_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


@pages
def test_commands_exist(page):
    assert list(unknown_commands(page)) == []


@pages
def test_options_exist(page):
    assert list(unknown_options(page)) == []


@pages
def test_python_in_fences_imports_what_exists(page):
    for language, text in FENCE.findall(visible(page)):
        for node in ast.walk(ast.parse(text)) if language == "python" else ():
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_code_cites_sections_that_exist():
    method = (REPOSITORY / "docs/method.md").read_text()
    sections = re.findall(r"(?m)^## (\d)\. ", method)
    assert sections == ["1", "2", "3", "4", "5"]
    cited = set(re.findall(r"docs/method\.md, sections? (\d)", source()))
    assert cited and cited <= set(sections)


def test_code_cites_nothing_outside_the_repository():
    old = "METHOD" + " section"
    citing = [path for path in MODULES if old in path.read_text()]
    citing = [path.relative_to(REPOSITORY) for path in citing]
    assert citing == []


def test_what_is_broken_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One [two](https://a.b)!\n## One\n[a](#one-two) [b](#one) [c](#three) [d](none.md)\n"
        "<!-- [e](later.md) python later.py -->\n`[f](code.md)`\n"
        "```bash\n# a comment\npython none.py --batch 3 --nothing\npython -m utils.none\n"
        "python -m utils.scores --pred DIR\npython train_scn.py --crop 9\n```\n"
        "`--crops`, `--crop 9`\n"
    )
    assert list(broken_links(page)) == ["#three", "none.md"]
    assert list(unknown_commands(page)) == ["none.py --batch 3 --nothing", "-m utils.none"]
    assert list(unknown_options(page)) == ["--nothing", "--crops"]
