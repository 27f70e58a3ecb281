"""Makes the offline runs beside this file, with wandb 0.31.0 in an environment of its own (the project needs none):

pip install wandb==0.31.0 && cd FOLDER && python make_wandb.py, and then FOLDER/wandb/offline-run-*/run-*.wandb.
"""

import wandb

# Without what names the machine.
settings = wandb.Settings(
    host="host", program="train.py", root_dir=".", console="off", disable_code=True, disable_git=True,
    x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True,
)  # fmt: skip
for seed in (0, 1):
    config = {"seed": seed, "lr": 1e-5}
    with wandb.init(
        project="project", name="adamw", mode="offline", config=config, settings=settings, id=f"sample{seed}"
    ) as run:
        for step in range(1, 6):
            run.log(
                {
                    "train/global_step": step,
                    "train/reward": float("nan") if step == 3 else 0.1 * step + 0.01 * seed,
                    "train/loss": float("inf") if step == 4 else 0.5,
                    "nested": {"entropy": 1.5},
                    "note": "text",
                }
            )
        run.log({"eval/reward": 0.5, "train/global_step": 5})
