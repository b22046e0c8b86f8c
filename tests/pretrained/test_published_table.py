"""The published networks as text and as Markdown."""

import pathlib

import pytest

from deeplax import convert
from deeplax.pretrained import published_table
from deeplax.settings import published
from tests import house
from tests.commands import ROOT

# The cheapest two of TensorFlow's, an ImageNet one, one without a file.
FEW = (
  "mobilenetv2_coco_voc_trainaug",
  "mobilenetv2_dm05_coco_voc_trainval",
  "mobilenet_v2_imagenet",
  "smp_deeplabv3plus_mobilenet_v2",
)
VOC = (
  "http://download.tensorflow.org/models/"
  "deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz"
)


def cells(markdown):
  """Return {network: cells}, without the titles."""
  rows = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in markdown.splitlines()[2:]
  ]
  return {name: rest for name, *rest in rows}


def test_the_list_has_figures_and_address_of_every_network():
  lines = published_table.text().splitlines()
  at = next(i for i, x in enumerate(lines) if x.startswith(FEW[0]))
  assert lines[at].split(maxsplit=3) == [
    *(FEW[0], "*", "voc2012"),
    "75.32 (val, 16); 77.33 (val, 8, 6 scales, flip)",
  ]
  assert lines[at + 1] == f"  tf_deeplab: {VOC}"
  names = [line.split()[0] for line in lines if line and line[0].isalpha()]
  assert set(published.NETWORKS) <= set(names)
  (nameless,) = {x for x in lines if x.startswith("  smp:")}
  assert nameless == "  smp: no file is published"


def test_a_file_has_one_address():
  rows = published.NETWORKS.values()
  addresses = [row.address for row in rows if row.file]
  assert len(set(addresses)) == len(addresses)
  assert all(address.startswith("http") for address in addresses)
  assert all(bool(row.site) == bool(row.file) for row in rows)


def test_the_table_has_multiply_adds_file_and_program():
  found = cells(published_table.markdown(FEW))
  assert list(found) == list(FEW)
  # 2.75 with the zeros of padding, as published (tests/settings).
  assert found[FEW[0]] == [
    "voc2012",
    "75.32 (val, 16); 77.33 (val, 8, 6 scales, flip)",
    "2.7",
    f"[{pathlib.PurePath(VOC).name}]({VOC})",
    "TensorFlow Lite's 8-bit file",
    "`tf_deeplab`",
  ]
  assert found[FEW[2]][:2] == ["ImageNet", ""]
  assert found[FEW[3]][3:5] == ["none is published", ""]


@pytest.mark.slow  # 60 s: a trace of every network
def test_all_networks_have_a_line_of_the_table():
  found = cells(published_table.markdown())
  assert list(found) == list(published.NETWORKS)
  assert all(float(row[2]) > 0.2 for row in found.values())
  page = (ROOT / "docs" / "networks.md").read_text()
  assert found == cells(page[page.index("| network |") :])


def test_the_command_needs_neither_jax_nor_a_workdir(capsys):
  have = house.loaded_by(
    "from deeplax import convert\n"
    "try:\n  convert.main(['--list'])\nexcept SystemExit as end:\n"
    "  assert not end.code"
  )
  assert "deeplax.pretrained.published_table" in have
  assert "jax" not in have
  with pytest.raises(SystemExit):
    convert.main(["--list"])
  assert capsys.readouterr().out == published_table.text() + "\n"
