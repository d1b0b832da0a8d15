# SPDX-License-Identifier: Apache-2.0
"""NVFlare's node: adds the node's number to every tensor and sends all of them back."""

import nvflare.client as flare


def main() -> None:
    """No training: one addition a tensor, so that the reply depends on the broadcast."""
    flare.init()
    number = int(flare.get_site_name().rsplit("-", 1)[1])
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        params = {name: tensor + number for name, tensor in model.params.items()}
        flare.send(flare.FLModel(params=params, params_type=flare.ParamsType.FULL))


if __name__ == "__main__":
    main()
