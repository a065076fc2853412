"""The model, its training, and the average: what they refuse, and what they keep."""

import pytest
import torch
from federation import APP  # noqa: F401  its import lets the app be imported
from torch import nn

from course_utils import model

from federated_digits import task  # isort: skip


@pytest.mark.parametrize("module", [model, task])
def test_an_empty_loader_is_refused_in_a_sentence(module) -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        module.train(module.Net(), [])
    with pytest.raises(ValueError, match="nothing to test on"):
        module.test(module.Net(), [])


@pytest.mark.parametrize("shape", [(1, 30, 30), (3, 32, 31)])
def test_images_that_do_not_fit_are_refused_before_any_is_seen(shape) -> None:
    with pytest.raises(ValueError, match="divisible by 4"):
        model.Net(shape)


class WithPositions(nn.Module):
    """A model with whole numbers in its state_dict, as transformers have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position_ids", torch.arange(512))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.float16))


def test_an_average_keeps_dtypes_and_whole_numbers() -> None:
    net = WithPositions()
    sizes = [111 + 37 * i for i in range(10)]
    average = model.weighted_average([net.state_dict()] * 10, sizes)
    for name, value in net.state_dict().items():
        assert average[name].dtype == value.dtype
    net.load_state_dict(average)
    assert torch.equal(net.position_ids, torch.arange(512))
    assert net.mask.tolist() == [True, False]


ONE, THREE = {"w": torch.ones(1, 8)}, {"w": torch.zeros(3, 8)}


@pytest.mark.parametrize(
    ("states", "sizes", "sentence"),
    [
        ([THREE, ONE], [1, 1], r"'w' has the shape \(1, 8\) at client 1, and \(3, 8\)"),
        ([ONE, {"v": torch.ones(1, 8)}], [1, 1], r"do not both have \['v', 'w'\]"),
        ([ONE, ONE], [0, 0], "no examples"),
        ([ONE, ONE], [1], "2 models and 1 numbers of examples"),
        ([], [], "at least one model"),
    ],
)
def test_what_cannot_be_averaged_is_refused(states, sizes, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        model.weighted_average(states, sizes)
