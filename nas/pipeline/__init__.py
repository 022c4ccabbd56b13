"""The road from a configuration to checked files and a report: the only package that composes all the others.

Read `main` (the road, step by step), then in its order `preparing` (task, space, device, what fits), `searching`,
`finalists` and `telling`. Below them: `setup` and `suiting` (what every process starts from), `probing` (the device's
latency models), `jobs` (training in workers), `tracks` (a candidate through its stages), `assemble` (what the report
is told), `checking` (`nas check`), `adding` and `devices` (`nas device`) and `starting` (`nas init`).
"""
