"""Networks of a few channels, with the symmetries of their big sisters."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sslpurify.symmetry.spec import (
    Fixed,
    Group,
    Linear,
    PermutationSpec,
    Probe,
    Touch,
    View,
)


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every tensor anew: at their defaults (0, 1) a wrong specification goes unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        draw = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if name.endswith("running_var"):
            draw = 0.5 + draw.square()
        elif tensor.ndim > 1:
            draw *= tensor[0].numel() ** -0.5
        tensor.copy_(draw)
    return network.double().eval()


def images(count: int = 4, size: int = 16, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


class PicoResNet(ResNet):
    """torchvision's ResNet at a sixteenth of its width."""

    def __init__(self, block: type[BasicBlock | Bottleneck], small_stem: bool) -> None:
        super().__init__(block, [2, 1, 2, 1])
        self.conv1 = nn.Conv2d(3, 4, 3 if small_stem else 7, 1 if small_stem else 2, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        if small_stem:
            self.maxpool = nn.Identity()
        self.fc = nn.Identity()

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        self.inplanes = 4 if planes == 64 else self.inplanes
        return super()._make_layer(block, planes // 16, blocks, stride, dilate)


class Attention(nn.Module):
    """Multi-head attention whose q, k and v come from one fused projection, as in CLIP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, width = tokens.shape
        fused = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        q, k, v = fused.view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-1, -2) * 0.5, -1) @ v
        return self.out_proj(mixed.transpose(1, 2).reshape(n, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.c_fc, self.c_proj = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln_1(tokens))
        return tokens + self.c_proj(F.gelu(self.c_fc(self.ln_2(tokens))))


WIDTH, HEADS, HIDDEN, DEPTH = 12, 3, 5, 2
HEAD = WIDTH // HEADS


class PicoTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 8, 8)
        self.position = nn.Parameter(torch.empty(4, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, HIDDEN) for _ in range(DEPTH)))
        self.ln_post = nn.LayerNorm(WIDTH)
        self.proj = nn.Parameter(torch.empty(WIDTH, 6))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.conv1(images).flatten(2).transpose(1, 2) + self.position
        return self.ln_post(self.blocks(tokens)).mean(1) @ self.proj


def transformer_spec() -> PermutationSpec:
    stream = [Touch("conv1.weight", 0), Touch("conv1.bias", 0), Touch("position", 1)]
    stream += [Touch("ln_post.weight", 0), Touch("ln_post.bias", 0), Touch("proj", 0)]
    groups = []
    for number in range(DEPTH):
        block = f"blocks.{number}"
        for name in ("ln_1", "ln_2"):
            stream += [Touch(f"{block}.{name}.weight", 0), Touch(f"{block}.{name}.bias", 0)]
        stream += [Touch(f"{block}.attn.in_proj_weight", 1), Touch(f"{block}.c_fc.weight", 1)]
        for name in ("attn.out_proj", "c_proj"):
            stream += [Touch(f"{block}.{name}.weight", 0), Touch(f"{block}.{name}.bias", 0)]
        groups += [*_attention_groups(f"{block}.attn"), _mlp_group(block)]
    reader = View(Probe("ln_post", layout="channels-last"))
    residual = Group("residual", WIDTH, tuple(stream), (reader,), "residual")
    fixed = (Fixed("conv1.weight", 1), Fixed("conv1.weight", 2), Fixed("conv1.weight", 3))
    return PermutationSpec((*groups, residual), (*fixed, Fixed("position", 0), Fixed("proj", 1)))


def _attention_groups(name: str) -> list[Group]:
    weight, bias, out = f"{name}.in_proj_weight", f"{name}.in_proj_bias", f"{name}.out_proj.weight"
    q, k, v = (
        Probe(name, "input", "channels-last", Linear(weight, bias, start, start + WIDTH))
        for start in (0, WIDTH, 2 * WIDTH)
    )

    def rows(offset: int, block: int = 1) -> list[Touch]:
        return [Touch(weight, 0, offset, block), Touch(bias, 0, offset, block)]

    moved = [touch for start in (0, WIDTH, 2 * WIDTH) for touch in rows(start, HEAD)]
    views = tuple(View(probe, 0, HEAD) for probe in (q, k, v))
    moved.append(Touch(out, 1, 0, HEAD))
    groups = [Group(f"{name}.heads", HEADS, tuple(moved), views, "heads")]
    for head in range(HEADS):
        at = head * HEAD
        qk = tuple(rows(at) + rows(WIDTH + at))
        vo = (*rows(2 * WIDTH + at), Touch(out, 1, at))
        groups.append(Group(f"{name}.qk{head}", HEAD, qk, (View(q, at), View(k, at)), "qk"))
        groups.append(Group(f"{name}.vo{head}", HEAD, vo, (View(v, at),), "vo"))
    return groups


def _mlp_group(block: str) -> Group:
    touches = (
        Touch(f"{block}.c_fc.weight", 0),
        Touch(f"{block}.c_fc.bias", 0),
        Touch(f"{block}.c_proj.weight", 1),
    )
    reader = View(Probe(f"{block}.c_proj", layout="channels-last"))
    return Group(f"{block}.mlp", HIDDEN, touches, (reader,), "inner")


class PicoGrouped(nn.Sequential):
    """A grouped convolution between two plain ones: 3 cardinal groups of 2 channels."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, groups=3),
            nn.ReLU(),
            nn.Conv2d(6, 2, 1),
        )


def grouped_spec() -> PermutationSpec:
    """The groups as blocks, then the channels that go into and come out of each."""
    read, out = Probe("2"), Probe("4")
    whole = [Touch(f"{layer}.{kind}", 0, 0, 2) for layer in "02" for kind in ("weight", "bias")]
    groups = [
        Group(
            "cardinality",
            3,
            (*whole, Touch("4.weight", 1, 0, 2)),
            (View(read, 0, 2), View(out, 0, 2)),
            "inner",
        )
    ]
    for number in range(3):
        at = 2 * number
        into = (
            Touch("0.weight", 0, at),
            Touch("0.bias", 0, at),
            Touch("2.weight", 1, select=(0, at, at + 2)),
        )
        outof = (Touch("2.weight", 0, at), Touch("2.bias", 0, at), Touch("4.weight", 1, at))
        groups.append(Group(f"in{number}", 2, into, (View(read, at),), "inner"))
        groups.append(Group(f"out{number}", 2, outof, (View(out, at),), "inner"))
    fixed = (
        Fixed("0.weight", 1),
        Fixed("2.weight", 2),
        Fixed("2.weight", 3),
        Fixed("4.weight", 0),
        Fixed("4.bias", 0),
    )
    return PermutationSpec(tuple(groups), fixed)
