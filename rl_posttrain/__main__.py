"""`python -m rl_posttrain`, and so `torchrun --nproc_per_node N -m rl_posttrain train ...`."""

from rl_posttrain.cli.main import main

if __name__ == "__main__":
    main()
