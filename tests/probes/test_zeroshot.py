import pytest
import torch
from torch.nn import functional as F

from sslpurify.errors import CheckpointError, DataError
from sslpurify.probes.zeroshot import class_embedding, zeroshot_predict
from tests.probes.clusters import clusters

QUERIES, TRUTH = clusters(100, seed=2)
CENTRES = torch.randn(5, 16, generator=torch.Generator().manual_seed(99))  # as in clusters


def prompts(classes=6, templates=4, seed=0):
    return torch.randn(classes, templates, 16, generator=torch.Generator().manual_seed(seed))


def test_a_class_is_the_unit_mean_of_its_unit_prompts():
    embeddings = prompts()
    for row, found in zip(embeddings, class_embedding(embeddings), strict=True):
        mean = sum(prompt / prompt.norm() for prompt in row) / len(row)
        torch.testing.assert_close(found, mean / mean.norm())


def test_scale_of_a_prompt_does_not_matter():
    scale = torch.rand(6, 4, 1, generator=torch.Generator().manual_seed(1)) + 0.1
    torch.testing.assert_close(class_embedding(prompts() * scale), class_embedding(prompts()))


def test_one_template_is_its_own_mean():
    single = prompts(templates=1)
    torch.testing.assert_close(class_embedding(single), F.normalize(single[:, 0]))


def test_the_nearest_name_is_that_of_a_full_similarity_matrix():
    found = zeroshot_predict(CENTRES, QUERIES)
    similarity = F.cosine_similarity(QUERIES[:, None].double(), CENTRES[None].double(), dim=2)
    assert torch.equal(found, similarity.argmax(dim=1))
    assert (found == TRUTH).float().mean() > 0.9


def test_scale_and_order_do_not_matter():
    scale = torch.rand(5, 1, generator=torch.Generator().manual_seed(1)) + 0.1
    order = torch.tensor([3, 0, 4, 1, 2])
    found = zeroshot_predict(CENTRES, QUERIES)
    assert torch.equal(zeroshot_predict(CENTRES * scale, QUERIES.half() * 7), found)
    assert torch.equal(order[zeroshot_predict(CENTRES[order], QUERIES)], found)


def test_collapsed_queries_are_what_a_backdoor_makes():
    assert zeroshot_predict(CENTRES, CENTRES[2:3].repeat(9, 1)).tolist() == [2] * 9


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_no_numbers_are_the_models_fault(value):
    for spoiled in (CENTRES.clone(), QUERIES.clone()):
        spoiled[3, 2] = value
        pair = (spoiled, QUERIES) if len(spoiled) == 5 else (CENTRES, spoiled)
        with pytest.raises(CheckpointError, match=r"1 of .* NaN or infinite, the first is row 3"):
            zeroshot_predict(*pair)
    embeddings = prompts()
    embeddings[1, 2, 0] = value
    with pytest.raises(CheckpointError, match=r"prompts: 1 of 24 .* row 6"):
        class_embedding(embeddings)


def test_dead_and_cancelling_prompts_are_refused():
    embeddings = prompts(templates=2)
    embeddings[2, 1] = -embeddings[2, 0]
    with pytest.raises(
        CheckpointError, match=r"class names: 1 of 6 .* all zero, the first is row 2"
    ):
        class_embedding(embeddings)
    embeddings[4, 1] = 0
    with pytest.raises(CheckpointError, match=r"prompts: 1 of 12 .* all zero, the first is row 9"):
        class_embedding(embeddings)
    with pytest.raises(DataError, match="prompts: no embeddings"):
        class_embedding(prompts(templates=0))


def test_a_text_tower_that_says_one_thing_of_all_names_is_refused():
    with pytest.raises(CheckpointError, match="class names: the embeddings of 5 prompts are coll"):
        zeroshot_predict(torch.ones(5, 16) + 1e-5 * CENTRES, QUERIES)
    zeroshot_predict(torch.ones(5, 16) + 0.02 * CENTRES, QUERIES)


def test_what_does_not_fit_together_is_named():
    with pytest.raises(DataError, match="16 dimensions, queries 8: text and image tower"):
        zeroshot_predict(CENTRES, QUERIES[:, :8])
    with pytest.raises(DataError, match="1 class names: a choice needs at least two"):
        zeroshot_predict(CENTRES[:1], QUERIES)
    with pytest.raises(DataError, match="queries: no embeddings"):
        zeroshot_predict(CENTRES, QUERIES[:0])
