"""The other side: plain eager PyTorch loops of the shape that the field's public code has.

Shuffle, slice, forward pass at all positions, backward pass, optimiser, scheduler, loss and accuracy logged with
`.item()` at each update; every so many updates the held-out half, batch by batch, logged the same way. Networks and
parameter names are those of groklab, so that both sides can start from the same numbers.

    reference transformer   nn.MultiheadAttention, layer norm, GELU, sequence first, as in Grokfast's code
    one-layer transformer   attention written out, no norm, ReLU, full batch, as in Nanda et al.'s
    MLP                     two concatenated embeddings, one hidden layer, as in Zhong et al.'s (Clock and Pizza)
"""

# pyright: reportMissingImports=false
# PyTorch is no dependency of groklab; `make bench` installs it.

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEARNING_RATE, WEIGHT_DECAY, BETAS, WARMUP_STEPS = 1e-3, 1.0, (0.9, 0.98), 10


@dataclass(frozen=True)
class Loop:
    """What is trained, as plain data, so that a process of its own can build it."""

    network: Literal["reference_transformer", "one_layer_transformer", "mlp"]
    parameters: Mapping[str, np.ndarray]
    tokens: np.ndarray  # [N, T]
    targets: np.ndarray  # [N]
    train: np.ndarray  # rows
    held_out: np.ndarray  # rows
    classes: int
    batch_size: int
    evaluate_every: int


class EagerTraining:
    """One run, in this process, with as many threads as PyTorch takes."""

    def __init__(self, loop: Loop):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.loop = loop
        kinds = {
            "reference_transformer": ReferenceTransformer,
            "one_layer_transformer": OneLayerTransformer,
            "mlp": MLP,
        }
        shapes = {name: parameter.shape for name, parameter in loop.parameters.items()}
        self.model = kinds[loop.network](shapes, loop.classes)
        state = self.model.named_as_here({name: torch.tensor(value) for name, value in loop.parameters.items()})
        self.model.load_state_dict(state)  # strict: every parameter on both sides
        self.model.to(self.device)
        self.tokens = torch.tensor(loop.tokens, dtype=torch.int64, device=self.device)
        self.targets = torch.tensor(loop.targets, dtype=torch.int64, device=self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: min(step / WARMUP_STEPS, 1))
        self.log: list[tuple[float, float]] = []
        self._updates = self._endless()

    def seconds_per_update(self, seconds: float) -> float:
        """Measured for at least `seconds`, in whole cycles of `evaluate_every` updates."""
        started, updates = time.perf_counter(), 0
        while updates == 0 or time.perf_counter() - started < seconds:
            for _ in range(self.loop.evaluate_every):
                next(self._updates)
            updates += self.loop.evaluate_every
        return (time.perf_counter() - started) / updates

    def parameter_count(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @torch.no_grad()
    def loss(self, rows: np.ndarray) -> float:
        """The mean loss on these rows as the network stands."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.device)
        return F.cross_entropy(self.model(self.tokens[index]), self.targets[index]).item()

    def _endless(self) -> Iterator[None]:
        train = torch.tensor(self.loop.train, dtype=torch.int64, device=self.device)
        updates = 0
        while True:
            if self.loop.batch_size < len(train):
                train = train[torch.randperm(len(train), device=self.device)]
            for rows in torch.split(train, self.loop.batch_size):
                self._update(rows)
                updates += 1
                if updates % self.loop.evaluate_every == 0:
                    self._evaluate()
                yield

    def _update(self, rows: Tensor) -> None:
        self.model.train()
        logits, targets = self.model(self.tokens[rows]), self.targets[rows]
        loss = F.cross_entropy(logits, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.log.append((loss.item(), (logits.argmax(-1) == targets).float().mean().item()))

    @torch.no_grad()
    def _evaluate(self) -> None:
        self.model.eval()
        total_loss = total_correct = 0.0
        held_out = torch.tensor(self.loop.held_out, dtype=torch.int64, device=self.device)
        full_batch = self.loop.batch_size == len(self.loop.train)
        for rows in [held_out] if full_batch else torch.split(held_out, self.loop.batch_size):
            logits, targets = self.model(self.tokens[rows]), self.targets[rows]
            total_loss += F.cross_entropy(logits, targets).item() * len(rows)
            total_correct += (logits.argmax(-1) == targets).float().sum().item()
        self.log.append((total_loss / len(held_out), total_correct / len(held_out)))


class EagerProcesses:
    """As many runs as there are cores, each in a single-thread process of its own: what a careful user would do."""

    def __init__(self, loop: Loop, processes: int):
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        for _ in range(processes):
            here, there = context.Pipe()
            context.Process(target=_serve, args=(loop, there), daemon=True).start()
            self._connections.append(here)
        self.seconds_per_update(0.0)

    def seconds_per_update(self, seconds: float) -> float:
        """Seconds per update of a run, all runs together, measured for at least `seconds`."""
        for connection in self._connections:
            connection.send(seconds)
        return 1 / sum(1 / connection.recv() for connection in self._connections)


def _serve(loop: Loop, connection: Connection) -> None:
    torch.set_num_threads(1)
    training = EagerTraining(loop)
    with suppress(EOFError, KeyboardInterrupt):  # the end of the process that asks
        while True:
            connection.send(training.seconds_per_update(connection.recv()))


# --- the networks; each maps tokens [B, T] to logits [B, classes] --------------------------------------------------


class Network(nn.Module):
    """A network whose sizes are read off groklab's parameters; `shapes` holds theirs, by dotted name."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], classes: int):
        super().__init__()
        self.classes = classes

    def named_as_here(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """groklab's parameters under the names and in the layout that this network has."""
        return parameters


class ReferenceTransformer(Network):
    """Pre-norm decoder of any depth; all positions are computed, in all layers."""

    HEADS = 4

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], classes: int):
        super().__init__(shapes, classes)
        vocabulary, width = shapes["tokens.weight"]
        length = shapes["positions.weight"][0]
        layers = sum(name.endswith("mlp.inner.weight") for name in shapes)
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(_ReferenceBlock(width, self.HEADS) for _ in range(layers))
        self.final_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        sequences = tokens.T  # [T, B]
        x = self.tokens(sequences) + self.positions(torch.arange(len(sequences), device=tokens.device))[:, None]
        for block in self.blocks:
            x = block(x, self.mask)
        return self.head(self.final_norm(x))[-1]

    def named_as_here(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """Queries, keys and values are one matrix in nn.MultiheadAttention."""
        named = {name: value for name, value in parameters.items() if ".attention." not in name}
        for i in range(len(self.blocks)):
            attention = f"blocks.{i}.attention"
            for kind in ("weight", "bias"):
                joined = [parameters[f"{attention}.{part}.{kind}"] for part in ("query", "key", "value")]
                named[f"{attention}.in_proj_{kind}"] = torch.cat(joined)
                named[f"{attention}.out_proj.{kind}"] = parameters[f"{attention}.out.{kind}"]
        return named


class _ReferenceBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads)
        self.mlp = _Feedforward(width, 4 * width, nn.GELU())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.attention_norm(x)
        mixed, _ = self.attention(h, h, h, attn_mask=mask, need_weights=False)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x))


class OneLayerTransformer(Network):
    """One block without norm; only the MLP has biases; tokens that are never an answer have no logit."""

    HEADS = 4

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], classes: int):
        super().__init__(shapes, classes)
        vocabulary, width = shapes["tokens.weight"]
        length = shapes["positions.weight"][0]
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([_OneLayerBlock(width, self.HEADS)])
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(length, length)), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight
        for block in self.blocks:
            x = block(x, self.mask)
        return self.head(x)[:, -1, : self.classes]


class _OneLayerBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = _Attention(width, heads)
        self.mlp = _Feedforward(width, 4 * width, nn.ReLU())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(x, mask)
        return x + self.mlp(x)


class _Attention(nn.Module):
    """Softmax attention over [B, H, T, d], step by step."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(mask == 0, float("-inf")).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(-2))


class _Feedforward(nn.Module):
    def __init__(self, width: int, inner: int, activation: nn.Module):
        super().__init__()
        self.inner, self.activation, self.outer = nn.Linear(width, inner), activation, nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.activation(self.inner(x)))


class MLP(Network):
    """The embeddings of both operands side by side, ReLU layers, a head."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], classes: int):
        super().__init__(shapes, classes)
        layers = sum(name.startswith("hidden.") and name.endswith(".weight") for name in shapes)
        sizes = [shapes[f"hidden.{i}.weight"] for i in range(layers)]
        vocabulary, width = shapes["tokens.weight"]
        self.tokens = nn.Embedding(vocabulary, width)
        self.hidden = nn.ModuleList(nn.Linear(inputs, outputs) for outputs, inputs in sizes)
        self.head = nn.Linear(sizes[-1][0], classes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens).flatten(-2)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.head(x)
