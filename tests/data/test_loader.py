import itertools

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from deeplax import errors
from deeplax.data import loader
from deeplax.data import shapes
from deeplax.data import transforms

AUGMENTATION = transforms.Augmentation(
  crop_size=(33, 33), pad_value=(127.5, 127.5, 127.5)
)


def source(images=10):
  return shapes.Shapes("train", images=images, size=(40, 30))


def stream(*, threads=2, batch_size=4, seed=0, images=10, **options):
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
  assert_equal(take(stream(threads=threads), 6), take(stream(), 6))


def test_processes_hold_consecutive_blocks_of_the_global_batch():
  whole = take(stream(), 6)
  parts = [take(stream(process_index=p, process_count=2), 6) for p in range(2)]
  joined = [
    jax.tree.map(lambda a, b: np.concatenate([a, b]), *pair)
    for pair in zip(*parts, strict=True)
  ]
  assert_equal(joined, whole)


def test_seed_changes_the_stream():
  first, other = next(stream()), next(stream(seed=1))
  assert (first["image"] != other["image"]).any()


def test_every_epoch_holds_every_image_once_in_another_order():
  still = AUGMENTATION._replace(
    crop_size=(40, 30), min_scale=1.0, max_scale=1.0, flip=False
  )
  data = source(6)
  names = {data[i]["image"].tobytes(): i for i in range(6)}
  iterator = loader.train(data, still, seed=0, batch_size=3, threads=2)
  seen = [names[x.tobytes()] for b in take(iterator, 8) for x in b["image"]]
  epochs = [tuple(seen[i : i + 6]) for i in range(0, 24, 6)]
  assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
  assert len(set(epochs)) > 1


def test_an_image_seen_again_is_augmented_anew():
  iterator = stream(images=1, batch_size=4)
  images = np.concatenate([next(iterator)["image"] for _ in range(2)])
  assert len({image.tobytes() for image in images}) > 4


def test_state_resumes_the_exact_stream():
  expected = take(stream(), 8)
  iterator = stream()
  take(iterator, 3)
  state = iterator.get_state()
  again = stream(threads=3)
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


@pytest.mark.parametrize("threads", [0, 3])
def test_examples_come_once_and_in_order(threads):
  data = source(7)
  found = list(loader.examples(data, threads=threads))
  assert [e["name"] for e in found] == [data[i]["name"] for i in range(7)]
  np.testing.assert_array_equal(found[6]["image"], data[6]["image"])


def test_processes_share_the_examples():
  data = source(7)
  names = [
    [
      e["name"][-1]
      for e in loader.examples(
        data, threads=1, max_images=5, process_index=p, process_count=2
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
