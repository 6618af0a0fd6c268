"""What of the backbone is not trained, and until when: `factory(**options)` -> object with `at(net, epoch)`.

A frozen stage gets no gradient and stands in eval mode: its batch norms keep the statistics they came with and its
dropout is off. The head is always trained. Stages are timm's coarse groups of a model's layers, the stem first: five of
a ResNet (stem, layer1 .. layer4), one per block of a ViT. Of several networks side by side each is treated by itself.
"""

from collections.abc import Callable
from typing import Any

from timm.models._manipulate import flatten_modules, group_parameters
from torch import nn

from threefold.errors import RecipeError
from threefold.learn.backbones import Concatenated, Split
from threefold.spec import need


class Freeze:
    """What every row of FREEZES makes: the first `count(epoch, stages)` of each network's stages are frozen.

    Depends on the epoch alone, so a resumed training needs no replay.
    """

    def __init__(self, count: Callable[[int, int], int] | None) -> None:
        self.count = count

    def at(self, net: nn.Module, epoch: int) -> None:
        """Freeze and unfreeze `net.backbone`; called after `net.train()` at the start of epoch `epoch`, from 0."""
        if self.count is None:  # some models do not name their stages, and need not
            return
        body = net.get_submodule("backbone")
        for network in networks(body):
            parts = stages_of(network)
            frozen = self.count(epoch, len(parts))
            for number, part in enumerate(parts):
                for parameter in part:
                    parameter.requires_grad_(number >= frozen)
        for module in body.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


def networks(body: nn.Module) -> list[nn.Module]:
    """The networks a backbone is made of: itself, unless it is several side by side or one with a split end."""
    if isinstance(body, Concatenated):
        return [network for member in body.members for network in networks(member)]
    return networks(body.body) if isinstance(body, Split) else [body]


def stages_of(network: nn.Module, *, coarse: bool = True) -> list[list[nn.Parameter]]:
    """Parameters of a network by stage, the stem first; not `coarse`: by block. Each parameter is in exactly one.

    A timm model names its groups of layers; of any other the children count, in order, those of its
    Sequentials one by one. Norms and biases alone are no stage: they belong to the one before.
    """
    matcher: Any = getattr(network, "group_matcher", None)
    if matcher:
        groups = list(group_parameters(network, matcher(coarse=coarse), return_values=True).values())
    else:
        children = flatten_modules(network.named_children())
        groups = [list(network.parameters(recurse=False)), *(list(child.parameters()) for _, child in children)]
    stages: list[list[nn.Parameter]] = []
    for group in groups:
        if stages and all(parameter.ndim <= 1 for parameter in group):
            stages[-1] += group
        elif group:
            stages.append(list(group))
    return stages


def none() -> Freeze:
    """Everything is trained from the start."""
    return Freeze(None)


def backbone(*, until: int | None = None) -> Freeze:
    """The head alone is trained; with `until` for that many epochs, then everything."""
    need(until is None or until >= 1, "train.freeze: until", until, "1 or more")
    return Freeze(lambda epoch, total: total if until is None or epoch < until else 0)


def stages(n: int, *, until: int | None = None) -> Freeze:
    """The stem and the first `n` stages after it stay frozen; with `until` for that many epochs."""
    need(until is None or until >= 1, "train.freeze: until", until, "1 or more")
    need(n >= 0, "train.freeze: n", n, "0 or more")

    def count(epoch: int, total: int) -> int:
        if n >= total:
            raise RecipeError(f"train.freeze: stages(n={n}); the backbone has {total - 1} stages after its stem")
        return n + 1 if until is None or epoch < until else 0

    return Freeze(count)


def gradual(*, every: int = 1) -> Freeze:
    """The head alone first, then one more stage every `every` epochs, from the last backwards.

    Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018.
    """
    need(every >= 1, "train.freeze: every", every, "1 or more")
    return Freeze(lambda epoch, total: max(0, total - epoch // every))


FREEZES: dict[str, Callable[..., Freeze]] = {"none": none, "backbone": backbone, "stages": stages, "gradual": gradual}
