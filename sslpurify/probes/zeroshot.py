"""Classes by the nearest name: a text tower's embeddings of prompts in place of a labelled bank."""

from jaxtyping import Float, Int
from torch import Tensor

from sslpurify.errors import DataError
from sslpurify.probes.features import require_spread, usable


def class_embedding(prompt_embeddings: Float[Tensor, "c t d"]) -> Float[Tensor, "c d"]:
    """One embedding a class: the mean of its prompts' unit embeddings, made unit length again.

    Source: Radford et al. 2021 (CLIP, arXiv 2103.00020), section 3.1.4.

    Args:
        prompt_embeddings: Of ``c`` classes in ``t`` templates; any scale.

    Returns:
        float32 of unit length, on the CPU.

    Raises:
        CheckpointError: An embedding is not finite or zero, or those of one class cancel out.
        DataError: There are none.
    """
    classes, templates, _ = prompt_embeddings.shape
    unit = usable(prompt_embeddings.flatten(0, 1), "prompts")
    return usable(unit.unflatten(0, (classes, templates)).mean(dim=1), "class names")


def zeroshot_predict(
    class_embeddings: Float[Tensor, "c d"], queries: Float[Tensor, "m e"]
) -> Int[Tensor, " m"]:
    """The class whose embedding has the largest cosine with each query.

    Args:
        class_embeddings: One a class, see `class_embedding`; any scale.
        queries: Embeddings of images from the same model; any scale.

    Raises:
        DataError: Fewer than two classes, no queries, or sizes that differ.
        CheckpointError: Embeddings are not finite, zero, or (of the classes) collapsed.
    """
    if class_embeddings.shape[1] != queries.shape[1]:
        raise DataError(
            f"class embeddings have {class_embeddings.shape[1]} dimensions, queries "
            f"{queries.shape[1]}: text and image tower come from different models"
        )
    if len(class_embeddings) < 2:
        raise DataError(f"{len(class_embeddings)} class names: a choice needs at least two")
    names = usable(class_embeddings, "class names")
    require_spread(names, "class names", "prompts")
    return (usable(queries, "queries").double() @ names.double().T).argmax(dim=1)
