"""Published networks: settings, file and the mIoU that was reported."""

import pathlib
from typing import Any, NamedTuple

Settings = dict[str, Any]
# Programs whose names of arrays `pretrained.tables` reads and writes.
SOURCES = ("caffe", "smp", "tf_deeplab", "timm", "torchvision")
OWN = "deeplax"  # a workdir, whose weights another network takes over


class Reported(NamedTuple):
  """One figure that was published with a network.

  Attributes:
    split: Part of the data set.
    output_stride: Of the evaluation.
    scales: Of the images.
    flip: Whether probabilities of the mirrored images were averaged in.
    miou: In percent.
    differs: In words, how the measurement differed from that of
      `deeplax.evaluate` with the row's settings; empty: it did not.
  """

  split: str
  output_stride: int
  scales: tuple[float, ...]
  flip: bool
  miou: float
  differs: str = ""


class Network(NamedTuple):
  """One published network.

  Attributes:
    source: Program that named its arrays, for `deeplax.convert --source`.
    file: Its archive or file; None: no file is published.
    site: Address of the folder that has the file.
    data: The data set that it was trained on last, as in `data.name`; None:
      ImageNet, so that only the backbone can be used here.
    settings: Keys of `config.model` that differ from the defaults.
    reported: Its figures.
    auxiliary: Whether the file has an auxiliary head.
    evaluation: Keys of `config.eval` for an evaluation like its source's.
    source_classes: Default of `deeplax.convert --source_classes`, for a file
      whose logits are not one for each class of `data`.
    checked: The real weights of this network whose outputs deeplax's were
      compared with (tests/pretrained/test_published.py); empty: none were.
  """

  source: str
  file: str | None
  data: str | None
  settings: Settings
  reported: tuple[Reported, ...] = ()
  auxiliary: bool = False
  evaluation: Settings = {}
  source_classes: str | None = None
  site: str = ""
  checked: str = ""

  @property
  def address(self) -> str:
    """Where its file is published; "": it is not."""
    return self.site + self.file if self.file else ""


_TENSORFLOW = "http://download.tensorflow.org/models/"
_MOBILE = "https://storage.googleapis.com/mobilenet_v2/checkpoints/"
_PYTORCH = "https://download.pytorch.org/models/"
_KAZUTO = (
  "https://github.com/kazuto1011/deeplab-pytorch/releases/download/v1.0/"
)
_TIMM = "https://huggingface.co/timm/{}.tf_in1k/resolve/main/"
_8_BIT = "TensorFlow Lite's 8-bit file"

ONE = (1.0,)
SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
THREE = (0.75, 1.0, 1.25)
TO_TWO = (*THREE, 1.5, 1.75, 2.0)

# The zoo's MobileNetV2 has neither atrous branches nor a decoder.
MOBILENET = {
  "backbone": "mobilenet_v2",
  "atrous_rates": (),
  "decoder.kind": "none",
}
_XCEPTION = {"backbone": "xception_65"}
_DPC = {"backbone": "xception_71", "head": "dpc"}
# PyTorch's programs evaluate each image by itself, without padding.
_UNPADDED = {"sizes": "unpadded", "pad_to": None}
# torchvision/transforms/_presets.py, references/segmentation/presets.py.
_RESIZED = (
  "on COCO val2017 in VOC's classes, images and masks resized so that the "
  "shorter side has 520 pixels; deeplax evaluates VOC's at their own size"
)
_LRASPP = {
  "output_stride": 32,
  "head": "lraspp",
  "channels": 128,
  "dropout": 0.0,
  "image_pooling_crop": (769, 769),
  "image_pooling_stride": (4, 5),
  "decoder.kind": "sum",
  "decoder.features": (8,),
  "decoder.output_stride": 8,
}
_V2_RESNET101 = {
  "conventions": "kazuto",
  "backbone": "resnet101",
  "output_stride": 8,
  "input_scales": (0.75, 0.5),
  "head": "aspp_sum",
  "channels": 0,
  "decoder.kind": "none",
  "batch_norm.mode": "fixed",
}
_V3 = {"decoder.kind": "none", "separable": False}
_TORCHVISION = {"conventions": "torchvision", **_V3}
_SMP_V3PLUS = {"conventions": "smp", "decoder.convs": 1}


def _zoo(
  file: str, data: str | None, settings: Settings, *reported: Reported
) -> Network:
  return Network(
    "tf_deeplab", f"{file}.tar.gz", data, settings, reported, site=_TENSORFLOW
  )


def _torchvision(
  file: str, settings: Settings, stride: int, miou: float
) -> Network:
  reported = Reported("COCO val2017", stride, ONE, False, miou, _RESIZED)
  settings = _TORCHVISION | settings | {"output_stride": stride}
  return Network(
    *("torchvision", file, "voc2012", settings, (reported,), True, _UNPADDED),
    site=_PYTORCH,
  )


def _smp(settings: Settings) -> Network:
  return Network("smp", None, "voc2012", {"conventions": "smp"} | settings)


def _timm(backbone: str, name: str) -> Network:
  settings = {"conventions": "timm", "backbone": backbone}
  site = _TIMM.format(name)
  return Network("timm", "model.safetensors", None, settings, site=site)


NETWORKS = {
  "mobilenetv2_dm05_coco_voc_trainaug": _zoo(
    "deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01",
    "voc2012",
    MOBILENET | {"depth_multiplier": 0.5},
    Reported("val", 16, ONE, False, 70.19),
  )._replace(checked="TensorFlow Lite's files of 8 bits and of float32"),
  "mobilenetv2_dm05_coco_voc_trainval": _zoo(
    "deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01",
    "voc2012",
    MOBILENET | {"depth_multiplier": 0.5},
    Reported("test", 8, ONE, False, 71.83),
  ),
  "mobilenetv2_coco_voc_trainaug": _zoo(
    "deeplabv3_mnv2_pascal_train_aug_2018_01_29",
    "voc2012",
    MOBILENET,
    Reported("val", 16, ONE, False, 75.32),
    Reported("val", 8, SIX, True, 77.33),
  )._replace(checked=_8_BIT),
  "mobilenetv2_coco_voc_trainval": _zoo(
    "deeplabv3_mnv2_pascal_trainval_2018_01_29",
    "voc2012",
    MOBILENET,
    Reported("test", 8, SIX, True, 80.25),
  ),
  "xception65_coco_voc_trainaug": _zoo(
    "deeplabv3_pascal_train_aug_2018_01_04",
    "voc2012",
    _XCEPTION,
    Reported("val", 16, ONE, False, 82.20),
    Reported("val", 8, SIX, True, 83.58),
  ),
  "xception65_coco_voc_trainval": _zoo(
    "deeplabv3_pascal_trainval_2018_01_04",
    "voc2012",
    _XCEPTION,
    Reported("test", 8, SIX, True, 87.80),
  ),
  "mobilenetv2_coco_cityscapes_trainfine": _zoo(
    "deeplabv3_mnv2_cityscapes_train_2018_02_05",
    "cityscapes",
    MOBILENET,
    Reported("val", 16, ONE, False, 70.71),
    Reported("val", 8, THREE, True, 73.57),
  ),
  "mobilenetv3_large_cityscapes_trainfine": _zoo(
    "deeplab_mnv3_large_cityscapes_trainfine_2019_11_15",
    "cityscapes",
    _LRASPP | {"backbone": "mobilenet_v3_large_seg"},
    Reported("val", 32, ONE, False, 72.41),
  ),
  "mobilenetv3_small_cityscapes_trainfine": _zoo(
    "deeplab_mnv3_small_cityscapes_trainfine_2019_11_15",
    "cityscapes",
    _LRASPP | {"backbone": "mobilenet_v3_small_seg"},
    Reported("val", 32, ONE, False, 68.99),
  ),
  "edgetpu_slim_cityscapes_trainfine": _zoo(
    "edgetpu-deeplab-slim_2020_03_09",
    "cityscapes",
    {
      "backbone": "mobilenet_edgetpu",
      "depth_multiplier": 0.75,
      "atrous_rates": (),
      "channels": 128,
      "decoder.kind": "none",
    },
    Reported("val", 32, ONE, False, 70.0),
    Reported("val", 16, ONE, False, 73.2),
  )._replace(checked=_8_BIT),
  "xception65_cityscapes_trainfine": _zoo(
    "deeplabv3_cityscapes_train_2018_02_06",
    "cityscapes",
    _XCEPTION,
    Reported("val", 16, ONE, False, 78.79),
    Reported("val", 8, THREE, True, 80.42),
  ),
  "xception71_dpc_cityscapes_trainfine": _zoo(
    "deeplab_cityscapes_xception71_trainfine_2018_09_08",
    "cityscapes",
    _DPC,
    Reported("val", 16, ONE, False, 80.31),
  ),
  "xception71_dpc_cityscapes_trainval": _zoo(
    "deeplab_cityscapes_xception71_trainvalfine_2018_09_08",
    "cityscapes",
    _DPC,
    Reported("test", 8, TO_TWO, True, 82.66),
  ),
  "mobilenetv2_ade20k_train": _zoo(
    "deeplabv3_mnv2_ade20k_train_2018_12_03",
    "ade20k",
    {"backbone": "mobilenet_v2", "atrous_rates": ()},
    Reported("val", 16, ONE, False, 32.04),
  )._replace(source_classes="ade20k"),
  "xception65_ade20k_train": _zoo(
    "deeplabv3_xception_ade20k_train_2018_05_29",
    "ade20k",
    _XCEPTION,
    Reported("val", 8, SIX, True, 45.65),
  )._replace(source_classes="ade20k"),
  "mobilenet_v2_imagenet": Network(
    *("tf_deeplab", "mobilenet_v2_1.0_224.tgz", None),
    {"backbone": "mobilenet_v2"},
    site=_MOBILE,
    checked=_8_BIT,
  ),
  "xception_41_imagenet": _zoo(
    "xception_41_2018_05_09", None, {"backbone": "xception_41"}
  ),
  "xception_65_imagenet": _zoo(
    "deeplabv3_xception_2018_01_04", None, _XCEPTION
  ),
  "xception_71_imagenet": _zoo(
    "xception_71_2018_05_09", None, {"backbone": "xception_71"}
  ),
  "resnet_v1_50_beta_imagenet": _zoo(
    "resnet_v1_50_2018_05_04",
    None,
    {"backbone": "resnet_v1_50_beta", "multi_grid": (1, 2, 4)},
  ),
  "resnet_v1_101_beta_imagenet": _zoo(
    "resnet_v1_101_2018_05_04",
    None,
    {"backbone": "resnet_v1_101_beta", "multi_grid": (1, 2, 4)},
  ),
  "torchvision_deeplabv3_resnet50": _torchvision(
    "deeplabv3_resnet50_coco-cd0a2569.pth",
    {"backbone": "resnet50"},
    8,
    66.4,
  ),
  "torchvision_deeplabv3_resnet101": _torchvision(
    "deeplabv3_resnet101_coco-586e9e4e.pth",
    {"backbone": "resnet101"},
    8,
    67.4,
  ),
  "torchvision_deeplabv3_mobilenet_v3_large": _torchvision(
    "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
    {"backbone": "mobilenet_v3_large"},
    16,
    60.3,
  ),
  # With eval.crf's defaults, which are its own: 77.93.
  "kazuto_deeplabv2_resnet101": Network(
    "caffe",
    "deeplabv2_resnet101_msc-vocaug-20000.pth",
    "voc2012",
    _V2_RESNET101,
    (Reported("val", 8, ONE, False, 76.65),),
    evaluation=_UNPADDED,
    site=_KAZUTO,
  ),
  "smp_deeplabv3_resnet101": _smp(
    _V3 | {"backbone": "resnet101", "output_stride": 8}
  ),
  "smp_deeplabv3plus_resnet50": _smp(_SMP_V3PLUS | {"backbone": "resnet50"}),
  "smp_deeplabv3plus_resnet101": _smp(_SMP_V3PLUS | {"backbone": "resnet101"}),
  "smp_deeplabv3plus_mobilenet_v2": _smp(
    _SMP_V3PLUS | {"backbone": "mobilenet_v2"}
  ),
  "smp_deeplabv3plus_xception65": _smp(
    _SMP_V3PLUS | {"backbone": "xception_65"}
  ),
  "smp_deeplabv3plus_xception71": _smp(
    _SMP_V3PLUS | {"backbone": "xception_71"}
  ),
  # timm's conversions of the reference's ImageNet networks.
  "timm_xception41.tf_in1k": _timm("xception_41", "xception41"),
  "timm_xception65.tf_in1k": _timm("xception_65", "xception65"),
  "timm_xception71.tf_in1k": _timm("xception_71", "xception71"),
}


def of_config(text: str) -> Network | None:
  """Return the network that --config names: configs/published.py:NAME."""
  file, _, name = text.partition(":")
  named = pathlib.PurePath(file).stem == "published"
  return NETWORKS.get(name) if named else None


def figure_lines(row: Network) -> list[str]:
  """Return a line for each figure that was published with a network."""
  lines = []
  for figure in row.reported:
    scales = ", ".join(map(str, figure.scales))
    how = f"{figure.split}, output stride {figure.output_stride}, scales "
    how += scales + (", flip" if figure.flip else "")
    differs = f", {figure.differs}" if figure.differs else ""
    lines.append(f"Reported: {figure.miou} mIoU ({how}){differs}")
  return lines
