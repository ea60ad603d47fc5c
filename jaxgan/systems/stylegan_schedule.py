"""What depends on the side of StyleGAN's images: minibatch and learning rate, as in the published training (Karras et al., CVPR 2019)."""

RATES = ((4, 0.001), (128, 0.0015), (256, 0.002), (512, 0.003))
"""Learning rates of generator and discriminator."""
_UP_TO_64 = ((8, 256), (16, 128), (32, 64), (64, 32))
BATCHES = {
    8: ((4, 512), *_UP_TO_64),
    4: ((4, 512), *_UP_TO_64, (128, 16)),
    2: ((4, 256), *_UP_TO_64, (128, 16), (256, 8)),
    1: ((4, 128), (16, 128), (32, 64), (64, 32), (128, 16), (256, 8), (512, 4)),
}
"""Images in a step of the whole machine, by its number of devices."""
