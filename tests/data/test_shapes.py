import numpy as np
import pytest

from deeplax import errors
from deeplax.data import shapes


def made(split="train", images=8, size=(97, 97), **options):
  return shapes.Shapes(split, images=images, size=size, **options)


@pytest.fixture(scope="module")
def many():
  source = made(images=200, size=(65, 65))
  return [source[i] for i in range(len(source))]


def test_a_picture_depends_on_seed_split_and_index_only():
  first = made()
  expected = first[5]
  for i in (0, 7):
    first[i]
  for again in (first[5], made(images=100)[5]):
    np.testing.assert_array_equal(again["image"], expected["image"])
    np.testing.assert_array_equal(again["label"], expected["label"])
  for other in (first[4], made("val")[5], made(seed=1)[5]):
    assert (other["image"] != expected["image"]).any()


def test_every_class_and_the_ignored_border_occur_often_enough(many):
  labels = np.stack([example["label"] for example in many])
  share = np.bincount(labels.ravel(), minlength=256) / labels.size
  assert 0.4 < share[0] < 0.75
  assert (share[1:8] > 0.005).all()
  assert 0.05 < share[255] < 0.15
  assert share[:8].sum() + share[255] == pytest.approx(1)


def test_the_border_lies_between_objects_and_ground():
  label = made()[0]["label"]
  for class_index in range(1, 8):
    inside = label == class_index
    near = np.zeros_like(inside)
    near[1:] |= inside[:-1]
    near[:-1] |= inside[1:]
    near[:, 1:] |= inside[:, :-1]
    near[:, :-1] |= inside[:, 1:]
    assert set(np.unique(label[near])) <= {class_index, 255}


def test_colors_do_not_tell_one_shape_from_another(many):
  plain = range(shapes.DISC, shapes.TRIANGLE + 1)
  means = {i: [] for i in plain}
  for example in many:
    for class_index, found in means.items():
      pixels = example["image"][example["label"] == class_index]
      if len(pixels):
        found.append(pixels.mean(axis=0))
  for found in means.values():
    np.testing.assert_allclose(np.mean(found, axis=0), 195, atol=10)
    assert (np.std(found, axis=0) > 20).all()


@pytest.mark.parametrize("size", [(1, 1), (9, 40), (33, 33), (65, 129)])
def test_pictures_of_any_size_can_be_made(size):
  example = made(size=size)[0]
  assert example["image"].shape == (*size, 3)
  assert example["label"].shape == size


def test_unknown_split_is_an_error():
  with pytest.raises(errors.InputError, match=r"'train_aug'.*'train', 'val'"):
    made("train_aug")
  with pytest.raises(IndexError):
    made()[8]
