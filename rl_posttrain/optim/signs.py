"""Lion (arXiv:2302.06675) and signSGD (arXiv:1802.04434): the classes of pytorch_optimizer.

signSGD    w <- (1 - lr * weight_decay) * w - lr * sign(g)
"""

import pytorch_optimizer

from rl_posttrain.optim.packaged import Packaged


class Lion(Packaged, pytorch_optimizer.Lion):
    """pytorch_optimizer's Lion, which can also be copied and pickled."""


class SignSGD(Packaged, pytorch_optimizer.SignSGD):
    """pytorch_optimizer's SignSGD, which can also be copied and pickled.

    With a momentum it is Signum, and keeps one state value per parameter; without, it keeps none.
    """
