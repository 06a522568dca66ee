# SPDX-License-Identifier: Apache-2.0
"""Clones the expert: trains pi0, pi05 or both on demonstrations.

Stops in time and leaves its whole state in --state, from where the next call
goes on, so short turns on a GPU add up. README.md has the commands.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
import time

import numpy as np
import torch
from piserve.worlds.tabletop import IMAGE_SIZE
from torch import Tensor

from data import Rows, norm_stats, render_patches, rows_for, to_pixels
from demonstrations import Demonstrations
from model import Pi0
from render import Renderer
from rollout import success_rate
from variant import Variant

HERE = pathlib.Path(__file__).resolve().parent
TOKENIZER = HERE.parent / "tests" / "golden" / "tokenizer" / "tiny.model"
_WARM_STEPS = 400  # of the learning rate
_EMA = 0.999
_WEIGHT_DECAY = 1e-4
_CLIP = 1.0


class Trainee:
    """A model, its optimiser and the moving average that will be exported."""

    def __init__(
        self,
        name: str,
        images: Tensor,
        rows: Rows,
        batch: int,
        draws: int,
    ) -> None:
        self.name = name
        self.variant = Variant.load(HERE / "variants" / f"{name}.json")
        self._device = images.device
        torch.manual_seed(len(name))
        self.model = Pi0(self.variant).to(self._device)
        self.master = [p.detach().clone() for p in self.model.parameters()]
        self.model.paligemma_with_expert.bfloat16()  # the rest stays float32
        self._images, self._rows = images, rows
        self._batch, self._draws = batch, draws
        self._random = torch.Generator(self._device)
        self._random.manual_seed(int(time.time()))
        self._rate = torch.zeros((), device=self._device)
        self.loss = torch.zeros((), device=self._device)
        self._working = list(self.model.parameters())
        self.average = [p.clone() for p in self.master]
        cuda = self._device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            self.master,
            lr=self._rate,
            betas=(0.9, 0.95),
            weight_decay=_WEIGHT_DECAY,
            fused=True,
            capturable=cuda,
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream() if cuda else None
        self.done = 0

    def prepare(self) -> None:
        """Captures a step as a CUDA graph."""
        if self._stream is None:
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(3):
                self._step()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self._random)
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._step()

    def step(self, rate: float) -> None:
        """One step, enqueued."""
        self.done += 1
        if self._graph is None or self._stream is None:
            self._rate.fill_(rate)
            self._step()
            return
        with torch.cuda.stream(self._stream):
            self._rate.fill_(rate)
            self._graph.replay()

    def _step(self) -> None:
        """Gradients of a bfloat16 copy move the float32 weights."""
        with torch.no_grad():
            torch._foreach_copy_(self._working, self.master)
        for p in self._working:
            p.grad = None
        loss = self._flow_loss()
        loss.backward()
        with torch.no_grad():
            for p, working in zip(self.master, self._working, strict=True):
                if working.grad is not None:  # the last layer has unused parts
                    p.grad = working.grad.float()
            torch.nn.utils.clip_grad_norm_(self.master, _CLIP, foreach=True)
            self._optimizer.step()
            torch._foreach_lerp_(self.average, self.master, 1 - _EMA)
            self.loss.lerp_(loss.detach(), 0.02)

    def _flow_loss(self) -> Tensor:
        """openpi's: x_t = t noise + (1 - t) a, target noise - a, t from 0 (the
        data) to 1, Beta(1.5, 1). One prefix serves several draws of it."""
        device, rows = self._device, self._rows
        pick = torch.randint(
            len(rows.state),
            (self._batch,),
            device=device,
            generator=self._random,
        )
        images = to_pixels(self._images[pick], torch.bfloat16)
        prefix = self.model.prefix(images, rows.tokens[pick], rows.mask[pick])
        prefix = prefix.repeated(self._draws)
        pick = pick.repeat_interleave(self._draws)
        actions = rows.actions[pick]
        draw = torch.rand(len(pick), device=device, generator=self._random)
        when = draw ** (1 / 1.5) * 0.999 + 0.001
        noise = torch.randn(
            actions.shape, device=device, generator=self._random
        )
        t = when[:, None, None]
        moved = t * noise + (1 - t) * actions
        v = self.model.velocity(prefix, moved, when, rows.state[pick])
        return (v - (noise - actions)).square().mean()

    # ----------------------------------------------------------- what is kept

    def averaged(self) -> dict[str, Tensor]:
        """The moving average by tensor names."""
        names = [name for name, _ in self.model.named_parameters()]
        return dict(zip(names, self.average, strict=True))

    def save(self, folder: pathlib.Path) -> None:
        """Two files of at most 16 MB; moments are kept as bfloat16."""
        torch.cuda.synchronize() if self._stream else None
        moments = [self._optimizer.state.get(p, {}) for p in self.master]
        first = [m["exp_avg"].bfloat16() if m else None for m in moments]
        second = [m["exp_avg_sq"].bfloat16() if m else None for m in moments]
        torch.save(
            {"parameters": self.master, "first": first},
            folder / f"{self.name}.parameters.pt",
        )
        torch.save(
            {"average": self.averaged(), "second": second, "done": self.done},
            folder / f"{self.name}.average.pt",
        )

    def resume(self, folder: pathlib.Path) -> bool:
        """Whether there was a state to go on from."""
        path = folder / f"{self.name}.parameters.pt"
        if not path.exists():
            return False
        device = self._device
        a = torch.load(path, map_location=device)
        b = torch.load(folder / f"{self.name}.average.pt", map_location=device)
        for p, value in zip(self.master, a["parameters"], strict=True):
            p.copy_(value)
        self.average = list(b["average"].values())
        self.done = b["done"]
        for p, first, second in zip(
            self.master, a["first"], b["second"], strict=True
        ):
            if first is not None:
                self._optimizer.state[p] = {
                    "step": torch.tensor(float(self.done), device=device),
                    "exp_avg": first.float(),
                    "exp_avg_sq": second.float(),
                }
        return True

    def exported(self) -> Pi0:
        """A copy with the averaged weights, rounded as in the file."""
        model = Pi0(self.variant).to(self._device)
        model.load_state_dict(
            {k: v.bfloat16().float() for k, v in self.averaged().items()}
        )
        return model


def learning_rate(step: int, total: int, peak: float) -> float:
    """Linear up, then half a cosine down to a hundredth."""
    if step < _WARM_STEPS:
        return peak * (step + 1) / _WARM_STEPS
    share = min(1.0, (step - _WARM_STEPS) / max(1, total - _WARM_STEPS))
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


def train(
    trainees: list[Trainee], seconds: float, total: int, peak: float
) -> None:
    """Until `total` steps (0: as many as fit) or the seconds have passed."""
    start = time.monotonic()
    first = trainees[0].done
    planned = total or first + 10**9
    shown = start
    while trainees[0].done < planned:
        elapsed = time.monotonic() - start
        if elapsed >= seconds:
            break
        if total:
            at, end = trainees[0].done, total
        else:  # where in the schedule the clock is
            end = 100_000
            at = round(end * elapsed / seconds)
            if trainees[0].done < _WARM_STEPS:
                at = trainees[0].done
        rate = learning_rate(at, end, peak)
        for _ in range(10):
            for trainee in trainees:
                trainee.step(rate)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.monotonic()
        if now - shown >= 5 or now - start >= seconds:
            shown = now
            speed = (trainees[0].done - first) / (now - start)
            losses = "  ".join(f"{t.name} {t.loss:.4f}" for t in trainees)
            print(
                f"step {trainees[0].done}  {now - start:5.0f}/{seconds:.0f} s  "
                f"{speed:.1f} steps/s  rate {rate:.1e}  loss {losses}",
                flush=True,
            )


def main() -> int:
    args = _parse()
    start = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    everything = Demonstrations.load(args.demonstrations)
    stats = norm_stats(everything)
    kept = np.random.default_rng(0).permutation(len(everything))
    kept = np.sort(kept[: args.rows])
    shown = Demonstrations(
        everything.states[kept],
        everything.chunks[kept],
        everything.targets[kept],
        everything.phrasing[kept],
    )
    renderer = Renderer(device, IMAGE_SIZE, compiled=device.type == "cuda")
    variants = {
        name: Variant.load(HERE / "variants" / f"{name}.json")
        for name in args.model
    }
    patch = variants[args.model[0]].vision.patch
    images = render_patches(renderer, shown.states, patch, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    _note(start, f"rendered {len(images)} observations")
    trainees = []
    for name in args.model:
        rows = rows_for(variants[name], shown, stats, TOKENIZER, device)
        trainee = Trainee(name, images, rows, args.batch, args.draws)
        if args.resume and trainee.resume(args.resume):
            _note(start, f"{name} goes on from step {trainee.done}")
        trainee.prepare()
        trainees.append(trainee)
    _note(start, "prepared")
    left = args.seconds - (time.monotonic() - start) - args.evaluate * 0.1
    train(trainees, left, args.total_steps, args.peak)
    args.state.mkdir(parents=True, exist_ok=True)
    for trainee in trainees:
        trainee.save(args.state)
    _note(start, "saved")
    for trainee in trainees if args.evaluate else []:
        rate = success_rate(
            trainee.exported(),
            stats["norm_stats"],
            TOKENIZER,
            Renderer(device, IMAGE_SIZE),
            range(args.evaluate),
        )
        _note(start, f"{trainee.name}: success {rate:.3f}")
    return 0


def _note(start: float, text: str) -> None:
    print(f"[{time.monotonic() - start:6.1f} s] {text}", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demonstrations", type=pathlib.Path)
    parser.add_argument(
        "--model", nargs="+", choices=("pi0", "pi05"), default=["pi0", "pi05"]
    )
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--resume", type=pathlib.Path)
    parser.add_argument(
        "--seconds", type=float, required=True, help="of this call, in all"
    )
    parser.add_argument(
        "--total-steps",
        type=int,
        default=0,
        help="of the schedule over all calls; 0: it ends with this call",
    )
    parser.add_argument("--peak", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument(
        "--draws", type=int, default=4, help="of noise and time per observation"
    )
    parser.add_argument("--rows", type=int, default=10**9)
    parser.add_argument(
        "--evaluate", type=int, default=200, help="episodes at the end"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
