# SPDX-License-Identifier: Apache-2.0
"""The base model and its tokenizer, from a local folder in Hugging Face's layout, safetensors only.

Nothing is fetched. Code of the folder runs only where the caller says so (`flb_node.remote_code` decides).
"""

import os
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from flb import base_model
from flb.errors import WrongBaseModel
from flb_node import remote_code
from flb_node.devices import Placement

REMEDY = "set model.model_path to the folder that the operator named, complete and undamaged"
UNLOADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)
"""What transformers raises for folders that it can't read; it has no common class for them."""


def quiet() -> None:
    """Keep the libraries' own logs and progress bars off the terminal; FLB reports for them."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def use_configured_threads() -> None:
    """Let torch use as many threads as `flb_node.threads` put into the environment."""
    if count := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(count))


def load_model(
    folder: Path,
    dtype: torch.dtype,
    placement: Placement,
    runs_code: bool = False,
    *,
    quantized: BitsAndBytesConfig | None = None,
) -> PreTrainedModel:
    """The weights in `dtype`, or `quantized`, on their device, in evaluation mode; `runs_code` lets the folder's own
    classes run, where transformers has none of its own.

    Raises Refused for an architecture that is code of the folder and may not run, ModelMissing without a folder of
    safetensors, WrongBaseModel if transformers can't load it or if a weight is missing there, since transformers would
    fill it with random numbers.
    """
    quiet()
    base_model.weight_files(folder)
    runs_code = runs_code and not _known(folder)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=placement.device_map or ({"": placement.device} if quantized else None),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=runs_code,
            # given as None it would hide what a folder of quantized weights says of itself
            **({"quantization_config": quantized} if quantized else {}),
        )
    except UNLOADABLE as error:
        _refuse_code(folder, runs_code, error)
        raise WrongBaseModel(f"the base model in {folder} can't be loaded ({_first_line(error)})", REMEDY) from error
    for problem in ("missing_keys", "mismatched_keys"):
        if names := sorted(str(name) for name in info[problem]):
            found = f"{len(names)} {problem.replace('_', ' ')}, first {names[0]}"
            raise WrongBaseModel(f"the weights in {folder} don't fit its configuration ({found})", REMEDY)
    return model.eval()


def load_tokenizer(folder: Path, runs_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer, with a padding token; a chat template may be missing. Raises ModelMissing or WrongBaseModel."""
    quiet()
    base_model.weight_files(folder)
    runs_code = runs_code and not _known(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=runs_code)
    except UNLOADABLE as error:
        _refuse_code(folder, runs_code, error)
        raise WrongBaseModel(f"the tokenizer in {folder} can't be loaded ({_first_line(error)})", REMEDY) from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise WrongBaseModel(
                f"the tokenizer in {folder} has neither a padding nor an end token",
                "add pad_token to its configuration",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _known(folder: Path) -> bool:
    """Whether transformers brings the architecture itself; allowed to, it would prefer the folder's code all the same."""
    return base_model.model_type(folder) in CONFIG_MAPPING


def _refuse_code(folder: Path, runs_code: bool, error: Exception) -> None:
    """Raise Refused if the folder did not load because its code may not run."""
    if not runs_code and "trust_remote_code" in str(error) and remote_code.needs_code(folder):
        raise remote_code.refusal(folder) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200].rstrip(".") if text else type(error).__name__
