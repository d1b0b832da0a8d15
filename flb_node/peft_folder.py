# SPDX-License-Identifier: Apache-2.0
"""A PEFT folder put on a loaded model, whole or not at all."""

import pickle
from pathlib import Path
from typing import Any

from flb.errors import ModelMissing, WrongBaseModel

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def check_adapter(folder: Path) -> None:
    """Raise ModelMissing unless the folder has a PEFT adapter's files."""
    for names in (("adapter_config.json",), WEIGHTS):
        if not any((folder / name).is_file() for name in names):
            raise ModelMissing(f"{folder} holds no {' or '.join(names)}", "name the folder of a PEFT adapter")


def with_adapter(model: Any, adapter: Path) -> Any:
    """The model with the adapter on it, for inference; `unload` of the result gives the model back.

    Raises WrongBaseModel if the adapter is damaged or of another model, with `model` as it was; peft itself would leave
    out what it lacks.
    """
    from peft import PeftModel, load_peft_weights

    from flb_node.base import UNLOADABLE

    try:
        weights = load_peft_weights(str(adapter), device="cpu")
        tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
    except (*UNLOADABLE, pickle.UnpicklingError, EOFError) as error:
        _take_off(model)
        raise WrongBaseModel(
            f"the adapter in {adapter} is damaged, or does not fit the base model", "name the adapter of this model"
        ) from error
    held = {name.replace(".default.", ".") for name, _ in tuned.named_parameters() if ".lora_" in name}
    if missing := sorted(held ^ set(weights)):
        _take_off(model)
        raise WrongBaseModel(
            f"the adapter in {adapter} does not fit the base model, first at {missing[0]}",
            "name the adapter of this model",
        )
    return tuned


def _take_off(model: Any) -> None:
    """Remove the layers that peft has put into a model, also where it stopped half-way."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            model.set_submodule(name, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
