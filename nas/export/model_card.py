"""`model_card.md`: what the files of an export are, in one page, and what they are not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.candidate import Parity, StageRecord
from nas.export.manifest import MANIFEST, NAMES, read_manifest, read_parities
from nas.export.usage import usage
from nas.run import write_atomic, write_json
from search_spaces.measurement import Measurement
from search_spaces.precision import Precision

CARD = "model_card.md"

Record = Mapping[str, Any]  # Any: JSON values

_COUNTED = ("num_bytes", "weight_bytes", "peak_memory_bytes", "macs", "parameters")


def add_results(
    folder: Path,
    *,
    ships: Precision,
    history: Sequence[StageRecord],
    figures: Mapping[str, Mapping[str, Measurement]],
) -> None:
    """Add what a run found out about an export to its manifest and card.

    Args:
        folder: An export folder.
        ships: Precision of the file that ships.
        history: Every stage that was tried, and what its gate said.
        figures: By file name, then by figure: latency_ms, accuracy, ... A figure that is there is replaced.

    Raises:
        RunError: The manifest cannot be read or written.
        KeyError: A file that the manifest does not know.
    """
    record = read_manifest(folder)
    record |= {"model": NAMES[ships], "precision": ships, "history": [step.to_dict() for step in history]}
    entries = {entry["name"]: entry for entry in record["files"]}
    for name, known in figures.items():
        entries[name]["figures"] |= {figure: value.to_dict() for figure, value in known.items()}
    write_json(folder / MANIFEST, record)
    write_card(folder)


def write_card(folder: Path) -> None:
    """Write the card of an export folder from its manifest and parity."""
    write_atomic(folder / CARD, card(read_manifest(folder), read_parities(folder)))


def card(manifest: Record, parities: Mapping[str, Parity]) -> str:
    """Return the card in Markdown."""
    metadata = manifest["metadata"]
    classes = metadata["classes"]
    return "\n".join(
        [
            f"# {metadata['task']}: a classifier of {len(classes)} classes",
            "",
            f"`{manifest['model']}` is the file to ship. {_made(manifest)}",
            "",
            *_files(manifest),
            "",
            *(f"- `{name}`: {parity.reason}." for name, parity in parities.items()),
            *(f"- `{entry['name']}`: {_audited(entry['audit'])}." for entry in manifest["files"]),
            "",
            "## Input and output",
            "",
            *_contract(metadata),
            "",
            "## Run it",
            "",
            "```python",
            usage(metadata, manifest["model"]),
            "```",
            "",
            "## Limits",
            "",
            *_limits(manifest),
            "",
        ]
    )


def _made(manifest: Record) -> str:
    metadata = manifest["metadata"]
    key = metadata["architecture_key"]
    network = f"network `{key}`" if key else "a network outside the block vocabulary"
    tried = manifest["history"]
    kept = [step["stage"] for step in tried if step["verdict"] == "kept"] if tried else metadata["stages"]
    stages = ", ".join(kept) or "none"
    return (
        f"It holds {network}, trained on data `{metadata['data_hash'][:16] or 'without a hash'}`; compression stages "
        f"kept: {stages}."
    )


def _files(manifest: Record) -> list[str]:
    """Return a table with a row for every figure and a column for every file."""
    entries = manifest["files"]
    names = list(_COUNTED) + sorted({name for entry in entries for name in entry["figures"]} - set(_COUNTED))
    rows = [["figure", *(f"`{entry['name']}`" for entry in entries)]]
    rows.append(["---"] * len(rows[0]))
    rows += [[name, *(_cell(entry, name) for entry in entries)] for name in names]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _cell(entry: Record, name: str) -> str:
    if name == "num_bytes":
        return f"{entry['num_bytes']:,} bytes (counted)"
    if name not in entry["figures"]:
        return "not measured"
    known = Measurement.from_dict(entry["figures"][name])
    if known.origin == "counted":
        return f"{known.value:,.0f} {known.unit} (counted)".replace(" 1 (", " (")
    interval = "" if known.lower is None else f" [{known.lower:.4g}, {known.upper:.4g}] at {known.level:.0%}"
    source = f", {known.source}" if known.source else ""
    return f"{known.value:.4g}{interval} {known.unit} ({known.origin}{source})".replace(" 1 (", " (")


def _audited(audit: Record) -> str:
    quantized = audit["quantized_convs"] + audit["quantized_products"]
    left = audit["float_convs"] + audit["float_products"]
    return f"{audit['runtime']} runs {quantized} convolutions and matrix products in 8 bits and {left} in float"


def _contract(metadata: Record) -> list[str]:
    given, resize, normalization = metadata["input"], metadata["resize"], metadata["normalization"]
    shape = {"nhwc": "height x width x channels", "nchw": "channels x height x width"}[given["layout"]]
    batch = "any number of images" if given["batch"] is None else f"{given['batch']} image"
    size = f"{given['width']} wide and {given['height']} high, {given['color']}"
    values = f"(pixel - mean) / std with mean {normalization['mean']} and std {normalization['std']}"
    if normalization["inside"]:
        values = "raw pixels 0 to 255; normalization is inside"
    return [
        f"- `image`: {given['dtype']}, {batch} x {shape}, {size}: {values}.",
        f"- Other sizes: {resize['rule']} ({resize['interpolation']}, fill {resize['fill']}). {resize['how']}",
        "- `logits`: one for each class, in the order of the metadata's `classes`; no softmax is applied.",
        *(f"- {sentence}" for sentence in metadata["decoding"]),
    ]


def _limits(manifest: Record) -> list[str]:
    measured = any("latency_ms" in entry["figures"] for entry in manifest["files"])
    limits = [
        "- Every image gets one of the classes, also one that shows none of them; logits are no probabilities.",
        "- Figures on validation images took part in choosing this network; images from elsewhere may do worse.",
        "- Peak memory is a plan of the activations; the runtime's own memory comes on top.",
    ]
    if measured:
        limits.append("- Latency holds for the device it was measured on, its runtime and its threads.")
    else:
        limits.append("- Latency was not measured on these files.")
    if manifest["precision"] == "int8":
        limits.append("- The 8-bit file gives other last digits under other runtimes and CPUs, as rounding is theirs.")
    return limits
