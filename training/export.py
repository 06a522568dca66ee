# SPDX-License-Identifier: Apache-2.0
"""Writes what train.py learned as a checkpoint folder that a server loads."""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

from data import norm_stats
from demonstrations import Demonstrations
from model import Pi0
from train import HERE, TOKENIZER
from variant import Variant

ASSET = "tabletop"
_EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens"
_KEPT_AS = "paligemma_with_expert.paligemma.lm_head"


def tensors_of(average: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """bfloat16 by the names of openpi's files (docs/pi0.md 3.3)."""
    return {
        name.replace(_EMBEDDING, _KEPT_AS): value.bfloat16().cpu().contiguous()
        for name, value in average.items()
    }


def trained_model(folder: pathlib.Path) -> Pi0:
    """The model of an exported folder, float32."""
    model = Pi0(Variant.load(folder / "variant.json"))
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict(
        {
            name.replace(_KEPT_AS, _EMBEDDING): value.float()
            for name, value in tensors.items()
        }
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demonstrations", type=pathlib.Path)
    parser.add_argument("--model", choices=("pi0", "pi05"), required=True)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    kept = torch.load(
        args.state / f"{args.model}.average.pt", map_location="cpu"
    )
    assets = args.out / "assets" / ASSET
    assets.mkdir(parents=True, exist_ok=True)
    weights = args.out / "model.safetensors"
    save_file(tensors_of(kept["average"]), weights)
    weights.chmod(0o644)
    shutil.copyfile(
        HERE / "variants" / f"{args.model}.json", args.out / "variant.json"
    )
    shutil.copyfile(TOKENIZER, args.out / "tokenizer.model")
    stats = norm_stats(Demonstrations.load(args.demonstrations))
    (assets / "norm_stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    print(f"wrote {args.out}, after {kept['done']} steps")


if __name__ == "__main__":
    main()
