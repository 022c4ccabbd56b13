"""The road from a configuration to checked files and a report: the only package that composes all the others.

Read `main` (the road, step by step), `setup` (task, space, device), `probing` (the device's latency models),
`searching`, `jobs` (training in workers), `tracks` (a candidate through its stages), `assemble` (what the report
is told), `checking` (`nas check`) and `starting` (the run directory).
"""
