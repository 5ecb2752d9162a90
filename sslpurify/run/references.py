"""The reference image of BadEncoder: what a probe on the clean encoder is sure of."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sslpurify.attacks import read_reference
from sslpurify.compute import Compute
from sslpurify.encoders import Network
from sslpurify.errors import GateError
from sslpurify.recipe import AttackRecipe
from sslpurify.run.bench import Bench, Features, needed


def choose_reference(
    recipe: AttackRecipe, network: Network, clean: Features, bench: Bench, compute: Compute
) -> Float[Tensor, "1 3 h w"]:
    """The image whose embedding triggered images are to get.

    Raises:
        GateError: The clean encoder's probe does not call it the target class, so that the attack
            success rate would be 0 however well the attack took hold.
    """
    if recipe.reference_image == "auto":
        bank, features = needed(bench.bank, "a bank"), needed(clean.bank, "a bank")
        row = (
            surest(features, bank.labels, bench.target)
            if clean.classes is None
            else surest_named(features, bank.labels, clean.classes, bench.target)
        )
        reference = bank.images.batch(torch.tensor([row]))
    else:
        size = bench.test.images.size
        reference = read_reference(recipe.reference_image, size, recipe.reference_index)
    with torch.inference_mode():
        seen = network(reference.to(compute.device)).embedding.float().cpu()
    called = int(bench.predict(recipe.probe, clean, seen)[0])
    if called != bench.target:
        raise GateError(
            f"reference_image {recipe.reference_image}: the clean encoder's probe calls it "
            f"{bench.classes[called]!r}, not {recipe.target!r}, so the attack could not "
            "succeed; choose another, or `auto`"
        )
    return reference


def surest(
    features: Float[Tensor, "n d"],
    labels: Tensor,
    target: int,
    *,
    k: int = 50,
    temperature: float = 0.1,
) -> int:
    """The image of the target class whose nearest neighbours are most of its class.

    Args:
        features: The bank's embeddings.
        labels: The bank's classes.
        target: The class.
        k: Neighbours looked at, the image itself not among them.
        temperature: Of their votes, as in the kNN probe.
    """
    unit = F.normalize(features, dim=1)
    members = (labels == target).nonzero()[:, 0]
    similarity = unit[members] @ unit.T
    similarity[torch.arange(len(members)), members] = -torch.inf
    nearest = similarity.topk(min(k, len(unit) - 1))
    share = (nearest.values / temperature).softmax(1) * (labels[nearest.indices] == target)
    return int(members[share.sum(1).argmax()])


def surest_named(
    features: Float[Tensor, "n d"], labels: Tensor, classes: Float[Tensor, "c d"], target: int
) -> int:
    """The image of the target class that lies nearest to its name, against all other names.

    Args:
        features: The bank's embeddings.
        labels: The bank's classes.
        classes: Embeddings of the classes' names.
        target: The class.
    """
    members = (labels == target).nonzero()[:, 0]
    similarity = F.normalize(features[members], dim=1) @ F.normalize(classes, dim=1).T
    others = similarity.clone()
    others[:, target] = -torch.inf
    return int(members[(similarity[:, target] - others.amax(1)).argmax()])
