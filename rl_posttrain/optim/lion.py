"""Lion (arXiv:2302.06675): the class of pytorch_optimizer."""

import pytorch_optimizer

from rl_posttrain.optim.packaged import Packaged


class Lion(Packaged, pytorch_optimizer.Lion):
    """pytorch_optimizer's Lion, which can also be copied and pickled."""
