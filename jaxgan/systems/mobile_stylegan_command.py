"""What `jaxgan sample` can ask of a MobileStyleGAN: the same as of a StyleGAN."""

from jaxgan.systems.stylegan_command import Options as Options
from jaxgan.systems.stylegan_command import run as run
