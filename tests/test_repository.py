"""What the checkout holds, and that documents and Makefile agree with it."""

import pathlib
import re
import shlex
import subprocess

import pytest

from tests import documents

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PAGES = documents.PAGES
TEXT = "\n".join(page.read_text() for page in PAGES)
BINARY = (".gif", ".jpg", ".npz", ".png", ".xz")


def tracked() -> list[pathlib.Path]:
  """Files git keeps or would keep; skip where this is no git checkout."""
  try:
    names = subprocess.run(
      ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
      cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f"git does not list this folder's files: {error}")
  return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_one_machine():
  machine = re.compile(r"(^|[^\w.])/(work|home|root|Users|tmp|mnt)/\w", re.M)
  for path in tracked():
    if path.suffix not in BINARY and path != pathlib.Path(__file__):
      found = machine.search(path.read_text())
      assert not found, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_no_file_is_over_one_megabyte():
  assert not [p for p in tracked() if p.stat().st_size > 1_000_000]


def test_no_file_is_a_bag_of_utilities():
  assert not [p for p in tracked() if p.stem in ("utils", "util", "helpers")]


def test_every_package_folder_has_an_init():
  for path in tracked():
    top = path.relative_to(ROOT).parts[0]
    # Those are scripts, and files for a user to copy.
    if path.suffix == ".py" and top not in ("benchmarks", "docs"):
      assert (path.parent / "__init__.py").exists(), path


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_has_a_floor_a_ceiling_and_a_reason(name):
  form = re.compile(r"[\w-]+(\[\w+\])?>=[\d.]+,<[\d.]+  # \S.*")
  for line in (ROOT / name).read_text().splitlines():
    if line and not line.startswith(("#", "-r ")):
      assert form.fullmatch(line), line
      assert len(line) <= 80, line


def test_every_module_in_the_documents_exists():
  modules = re.findall(r"python -m ((?:deeplax|experiments)[\w.]*\w)", TEXT)
  assert modules
  for module in {*modules} - {"deeplax", "deeplax.NAME"}:
    # Installed, the experiments lie inside the package.
    path = module.replace("deeplax.experiments.", "experiments.")
    assert (ROOT / f"{path.replace('.', '/')}.py").exists(), module


def test_every_make_target_in_the_documents_exists():
  targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
  named = re.findall(r"`make ([a-z-]+)", TEXT)
  assert {"quickstart", "test"} <= set(named) <= targets


def test_every_config_in_the_documents_exists():
  configs = re.findall(r"configs/(\w+\.py)", TEXT)
  assert configs
  for config in configs:
    assert (ROOT / "configs" / config).exists(), config


def test_every_config_is_in_the_documents():
  table = (ROOT / "docs" / "training.md").read_text()
  for path in (ROOT / "configs").glob("*.py"):
    if path.stem not in ("__init__", "common", "protocols"):
      assert f"| `configs/{path.name}" in table, path.name


def test_the_documents_give_the_plain_command_behind_each_target():
  shell = [b for b in documents.blocks() if b.language == "bash"]
  given = {" ".join(words) for b in shell for words in b.commands()}
  lines = MAKEFILE.replace("\\\n", " ").splitlines()
  recipes = [line.partition("$(PY) -m ")[2] for line in lines]
  for recipe in filter(None, recipes):
    command = " ".join(["python -m", *shlex.split(recipe)])
    assert command in given, command


def test_nothing_in_the_documents_waits_to_be_filled_in():
  for page in PAGES:
    assert not re.search(r"@@|^(TABLE|TODO)\b", page.read_text(), re.M), page


def test_readme_is_short():
  assert len(README.splitlines()) <= 200


def test_docs_are_at_most_twelve_pages():
  pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
  assert len(pages - {"results", "SOURCES"}) <= 12  # records, not pages


def slugs(text: str) -> set[str]:
  """What a page's headings are called in links."""
  titles = re.findall(r"^#+ (.+)$", text, re.M)
  return {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_of_the_checkout_and_to_headings(page):
  text = page.read_text()
  for link in re.findall(r"\]\(([^)\s]+)\)", text):
    if re.match(r"\w+:", link):
      continue  # another site
    name, _, heading = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    assert target.exists() and target.is_relative_to(ROOT), link
    assert not heading or heading in slugs(target.read_text()), link


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_and_folders_that_the_map_names_are_there(name):
  named = re.findall(r"`([\w./]+(?:\.py|\.json|/))`", (ROOT / name).read_text())
  assert named
  paths = [f"/{path.relative_to(ROOT)}" for path in tracked()]
  for place in named:
    assert any(f"/{place}" in path for path in paths), place
