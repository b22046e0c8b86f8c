from collections.abc import Callable
import itertools
import json
import pathlib

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from deeplax import errors
from deeplax.data import build
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import loader
from deeplax.data import shapes
from deeplax.data import spec
from deeplax.data import transforms
from deeplax.data import views
from deeplax.data.prepare import command
from deeplax.settings import defaults
from tests.data import trees
from tests.models import networks

AUGMENTATION = transforms.Augmentation(
  crop_size=(33, 33), pad_value=(127.5, 127.5, 127.5)
)


# The fewer images, the longer Grain looks for the next one of its shuffle.
def source(images=100):
  return shapes.Shapes("train", images=images, size=(40, 30))


def stream(*, threads=2, batch_size=4, seed=0, images=100, **options):
  return loader.train(
    source(images),
    AUGMENTATION,
    seed=seed,
    batch_size=batch_size,
    threads=threads,
    **options,
  )


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_equal(found, expected):
  assert len(found) == len(expected)
  for a, b in zip(found, expected, strict=True):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_batches_are_bytes_of_the_crop_size():
  batch = next(stream())
  assert set(batch) == {"image", "label"}
  assert batch["image"].shape == (4, 33, 33, 3)
  assert batch["label"].shape == (4, 33, 33)
  assert batch["image"].dtype == batch["label"].dtype == np.uint8


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_stream_is_the_same_for_any_number_of_threads(threads):
  assert_equal(take(stream(threads=threads), 4), take(stream(), 4))


def test_processes_hold_consecutive_blocks_of_the_global_batch():
  whole = take(stream(), 4)
  parts = [take(stream(process_index=p, process_count=2), 4) for p in range(2)]
  joined = [
    jax.tree.map(lambda a, b: np.concatenate([a, b]), *pair)
    for pair in zip(*parts, strict=True)
  ]
  assert_equal(joined, whole)


def test_seed_changes_the_stream():
  first, other = next(stream()), next(stream(seed=1))
  assert (first["image"] != other["image"]).any()


def drawn_in_turn(batches, *, images, **options):
  """Which images so many batches hold, found by their pixels."""
  still = AUGMENTATION._replace(
    crop_size=(40, 30), min_scale=1.0, max_scale=1.0, flip=False
  )
  data = source(images)
  names = {data[i]["image"].tobytes(): i for i in range(images)}
  iterator = loader.train(data, still, threads=2, **options)
  return [
    [names[x.tobytes()] for x in batch["image"]]
    for batch in take(iterator, batches)
  ]


@pytest.mark.parametrize(
  ("images", "size", "seed"), [(6, 3, 0), (7, 3, 5), (1, 2, 1), (5, 8, 2)]
)
def test_the_images_of_a_step_can_be_told(images, size, seed):
  seen = drawn_in_turn(7, images=images, batch_size=size, seed=seed)
  for step, expected in enumerate(seen, start=1):
    told = loader.drawn(source(images), step, seed=seed, batch_size=size)
    assert told == expected, step


def test_every_epoch_holds_every_image_once_in_another_order():
  seen = sum(drawn_in_turn(8, images=6, batch_size=3, seed=0), [])
  epochs = [tuple(seen[i : i + 6]) for i in range(0, 24, 6)]
  assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
  assert len(set(epochs)) > 1


def test_an_image_seen_again_is_augmented_anew():
  iterator = stream(images=1, batch_size=4)
  images = np.concatenate([next(iterator)["image"] for _ in range(2)])
  assert len({image.tobytes() for image in images}) > 4


def test_state_resumes_the_exact_stream():
  expected = take(stream(images=10), 8)
  iterator = stream(images=10)
  take(iterator, 3)  # into the second epoch
  state = iterator.get_state()
  again = stream(images=10, threads=3)
  again.set_state(state)
  assert_equal(take(again, 5), expected[3:])


def test_checkpoint_resumes_the_exact_stream(tmp_path):
  iterator = stream()
  take(iterator, 2)
  with ocp.CheckpointManager(tmp_path) as manager:
    manager.save(
      2,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave({"step": np.int32(2)}),
        data=grain.checkpoint.CheckpointSave(iterator),
      ),
    )
  expected = take(iterator, 3)
  again = stream()
  with ocp.CheckpointManager(tmp_path) as manager:
    manager.restore(
      2,
      args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(again)),
    )
  assert_equal(take(again, 3), expected)


def read(
  name: str,
  root: pathlib.Path,
  split: str = "train",
  channels: tuple[int, ...] | None = None,
) -> files.Source:
  """Read a split as a run does."""
  config = defaults.base()
  config.data.name, config.data.root = name, str(root)
  config.data.channels = channels
  return build.source(config.data, split)


def camvid(root: pathlib.Path) -> files.Source:
  for i in range(3):
    trees.image(root / f"train/{i}.png", (20 + i, 30))
    trees.mask(
      root / f"trainannot/{i}.png", trees.labels(i, 11, size=(20 + i, 30))
    )
  return read("camvid", root)


def five_bands(root: pathlib.Path) -> files.Source:
  trees.folder(root)
  rng = np.random.default_rng(0)
  for image in (root / "images" / "train").iterdir():
    image.unlink()
    bands = rng.integers(0, 4000, (*trees.SIZE, 5), dtype=np.uint16)
    np.save(image.with_suffix(".npy"), bands)
  return read("folder", root, channels=(4, 0, 2, 1, 3))


def built(root: pathlib.Path) -> files.Source:
  """Return VOC as array_record."""
  tree, out = trees.voc(root), root / "out"
  with pytest.raises(SystemExit) as end:
    command.main(
      ["voc2012", f"--source={tree}", f"--out={out}", "--allow_partial"]
    )
  assert not end.value.code
  return read("voc2012", out, "train+val")


SOURCES: dict[str, Callable[[pathlib.Path], files.Source]] = {
  "shapes": lambda root: source(),
  "folder": lambda root: read("folder", trees.folder(root)),
  "bands": five_bands,
  "voc2012": lambda root: read("voc2012", trees.voc(root)),
  "train_aug": lambda root: read(
    "voc2012", trees.voc(root, aug="train_aug.txt"), "train_aug"
  ),
  "cityscapes": lambda root: read("cityscapes", trees.cityscapes(root)),
  "ade20k": lambda root: read("ade20k", trees.ade20k(root)),
  "camvid": camvid,
  "camvid in a folder": lambda root: read(
    "camvid", trees.folder(root, classes=spec.CAMVID.class_names)
  ),
  "array_record, two splits": built,
  "two splits": lambda root: read("voc2012", trees.voc(root), "train+val"),
  "some twice": lambda root: views.Listed(
    folder.source(trees.folder(root), "train"), np.array([0, 1, 2, 1, 1])
  ),
}


# Those that read a tree by the same code as another are slow.
SLOW = ("train_aug", "cityscapes", "ade20k", "camvid", "camvid in a folder")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=networks.SLOW if name in SLOW else ())
    for name in SOURCES
  ],
)
def test_every_source_resumes_exactly(tmp_path, name):
  data = SOURCES[name](tmp_path)
  bands = data[0]["image"].shape[-1]
  settings = transforms.Augmentation(
    crop_size=(13, 17), pad_value=(127.5,) * bands
  )

  def start(threads):
    return loader.train(data, settings, seed=1, batch_size=2, threads=threads)

  iterator = start(1)
  before = take(iterator, 2)
  state = json.dumps(iterator.get_state())
  after = take(iterator, 2)
  for old, new in zip(before, after, strict=True):
    assert (old["image"] != new["image"]).any()  # else the rest says nothing
  for threads in (0, 1, 4):
    again = start(threads)
    again.set_state(json.loads(state))
    assert_equal(take(again, 2), after)


@pytest.mark.parametrize("threads", [0, 3])
def test_examples_come_once_and_in_order(threads):
  data = source(7)
  found = list(loader.examples(data, threads=threads))
  assert [e["name"] for e in found] == [data[i]["name"] for i in range(7)]
  np.testing.assert_array_equal(found[6]["image"], data[6]["image"])


def test_processes_share_the_examples():
  data = source(5)
  names = [
    [
      e["name"][-1]
      for e in loader.examples(
        data, threads=1, process_index=p, process_count=2
      )
    ]
    for p in range(2)
  ]
  assert names == [["0", "2", "4"], ["1", "3"]]


def test_wrong_settings_are_errors():
  with pytest.raises(errors.InputError, match="4 is not a multiple of the 3"):
    stream(process_count=3)
  with pytest.raises(errors.InputError, match="threads -1"):
    stream(threads=-1)


def test_error_of_a_file_reaches_the_reader():
  class Broken(shapes.Shapes):
    def __getitem__(self, index):
      raise errors.InputError("a.png is not a mask")

  broken = Broken("train", images=3, size=(9, 9))
  iterator = loader.train(broken, AUGMENTATION, seed=0, batch_size=1, threads=2)
  with pytest.raises(errors.InputError, match=r"a\.png is not a mask"):
    next(iterator)
