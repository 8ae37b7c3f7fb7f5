import pytest
import torch

from quantfx.tools.models import photographs


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a photograph was fetched instead of read from the wheel")

    monkeypatch.setattr("socket.socket.connect", refuse)


def test_no_photograph_is_on_both_sides() -> None:
    calibration = set(photographs.CALIBRATION_PHOTOGRAPHS)
    test = set(photographs.TEST_PHOTOGRAPHS)
    assert not calibration & test
    assert not {"cat", "stereo_motorcycle"} & (calibration | test)  # second names of a scene


def test_crops_are_normalised_images() -> None:
    for crops, count in ((photographs.calibration_crops(), 64), (photographs.test_crops(), 108)):
        assert crops.shape == (count, 3, 224, 224)
        assert crops.dtype == torch.float32
        assert crops.is_contiguous()
        assert crops.min() >= -127 / 128
        assert crops.max() <= 1
        assert 0.2 < crops.std() < 1


def test_crops_repeat_and_differ_from_each_other() -> None:
    first, second = photographs.test_crops(3), photographs.test_crops(3)
    assert torch.equal(first, second)
    assert len({crop.sum().item() for crop in first}) == len(first)


def test_fewer_crops_are_the_first_of_each_photograph() -> None:
    more, fewer = photographs.calibration_crops(2), photographs.calibration_crops(1)
    assert torch.equal(more[::2], fewer)


def test_grey_photographs_get_three_equal_channels() -> None:
    red, green, blue = photographs.photograph("camera")
    assert torch.equal(red, green)
    assert torch.equal(red, blue)
    assert photographs.photograph("chelsea").shape == (3, 300, 451)
