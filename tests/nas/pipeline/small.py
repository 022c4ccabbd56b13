"""A run of seconds for the tests of the road: the digits at 16 pixels, tiny networks, three stages."""

from pathlib import Path

SMALL = """
seed = 3
workers = 1

[task]
type = "digits"

[data]
height = 16
width = 16
color = "grey"

[space]
type = "mixed"
widths = [[8], [8, 16], [16, 24]]
strides = [1, 2, 2, 1]
depths = [1]
head_widths = [32]

[device]
name = "test-machine"
backend = { type = "local", threads = 1, visits = 3, visit_ms = 2.0, drift = 1.0, sustained_s = 0.2 }

[probe]
networks = 12

[budget]
latency_ms = LATENCY
weight_bytes = 400_000

[search]
trials = 6
batch = 3
startup = 3
rungs = { epochs = [1, 2], keep = 0.5 }

[train]
epochs = 3

[[stages]]
type = "prune"
target = 0.9
steps = 1
step_epochs = 1
epochs = 1
gate = { max_drop = 0.9 }

[[stages]]
type = "distill"
epochs = 1
gate = { max_drop = 0.9 }

[[stages]]
type = "quantize"
gate = { max_drop = 0.9 }

[pipeline]
finalists = 1
attempts = 2
baselines = ["shufflenet_v2"]
"""


def run_file(folder: Path, *, latency: float = 5.0, more: str = "") -> Path:
    path = folder / "run.toml"
    path.write_text(SMALL.replace("LATENCY", str(latency)) + more)
    return path
