import numpy as np

from deeplax.data import shapes
from deeplax.settings import defaults
from deeplax.training import class_balance


class Unread(shapes.Shapes):
  def __getitem__(self, index):
    raise AssertionError("a mask was read")


def source(kind=shapes.Shapes):
  return kind("train", images=6, size=(33, 33))


def test_nothing_is_counted_where_neither_weights_nor_copies_need_it():
  config = defaults.base()
  config.train.class_weights, config.data.duplicate_classes = "none", ()
  config.train.hard_pixels, config.train.auxiliary_weight = 0.25, 0.4
  config.model.input_scales = (0.5,)
  data = source(Unread)
  same, loss = class_balance.examples_and_loss(config, data, None, print)
  assert same is data and loss == class_balance.loss_settings(config)
  assert loss.class_weights is None and loss.per_scale
  assert (loss.hard_pixels, loss.auxiliary_weight) == (0.25, 0.4)


def test_given_weights_are_taken_as_they_are():
  config, data = defaults.base(), source(Unread)
  classes = data.spec.num_classes
  config.train.class_weights = ", ".join(map(str, range(1, classes + 1)))
  _, loss = class_balance.examples_and_loss(config, data, None, print)
  assert loss.class_weights == tuple(range(1, classes + 1))


def test_images_with_a_rare_class_are_listed_twice(tmp_path):
  config, data = defaults.base(), source()
  last = len(data.spec.class_names) - 1
  config.data.duplicate_classes = (data.spec.class_names[last],)
  examples, _ = class_balance.examples_and_loss(config, data, None, print)
  having = [bool((data[i]["label"] == last).any()) for i in range(len(data))]
  assert 0 < sum(having) < len(data)
  assert len(examples) == len(data) + sum(having)


def test_counted_weights_are_larger_for_rarer_classes():
  config, data = defaults.base(), source()
  config.train.class_weights = "median_frequency"
  _, loss = class_balance.examples_and_loss(config, data, None, print)
  labels = np.stack([data[i]["label"] for i in range(len(data))])
  pixels = np.bincount(labels[labels < 255]).astype(float)
  assert loss.class_weights is not None
  common, rare = np.argmax(pixels), np.argmin(np.where(pixels, pixels, np.inf))
  assert loss.class_weights[rare] > loss.class_weights[common]
