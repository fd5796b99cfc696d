"""Choice of devices and precision, and errors for devices that the machine lacks."""

import pytest
import torch

from model.config.resolution import resolve
from model.loop.devices import DeviceError, autocast_type, choose_devices


def settings(**training):
    return resolve(None, None, {f"training.{key}": value for key, value in training.items()}).config.training


@pytest.fixture
def gpus(monkeypatch):
    """Returns a function that sets the number of GPUs that torch reports."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "cuda"}, "training.device is cuda, but this machine has 0 GPUs; set it to auto or cpu"),
        ({"model_gpu": 1}, "training.model_gpu is 1, but this machine has 0 GPUs"),
        ({"data_gpu": 0}, "training.data_gpu is 0, but this machine has 0 GPUs"),
        ({"enable_memory_isolation": True}, "give training.model_gpu and training.data_gpu, or leave it out"),
        ({"device": "cpu", "model_gpu": 0}, "training.device is cpu, but training.model_gpu requires a GPU"),
    ],
)
def test_a_missing_gpu_is_named(gpus, asked, message):
    gpus(0)
    with pytest.raises(DeviceError, match=message):
        choose_devices(settings(**asked))


def test_auto_takes_a_gpu_where_there_is_one(gpus):
    gpus(0)
    assert choose_devices(settings()).model == torch.device("cpu")
    gpus(1)
    assert choose_devices(settings()).model == torch.device("cuda", 0)
    assert choose_devices(settings(device="cpu")).model == torch.device("cpu")


def test_memory_isolation_uses_two_gpus_and_limits_their_memory(gpus, monkeypatch):
    gpus(2)
    bounds = {}
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, gpu: bounds.update({gpu: share}))
    devices = choose_devices(settings(data_gpu=0, model_gpu=1, enable_memory_isolation=True))
    assert (devices.data, devices.model) == (torch.device("cuda", 0), torch.device("cuda", 1))
    assert set(bounds) == {devices.data, devices.model}
    assert all(0 < share < 1 for share in bounds.values())


def test_each_process_takes_the_gpu_of_its_number(gpus):
    gpus(2)
    assert [choose_devices(settings(), rank, 2).model.index for rank in (0, 1)] == [0, 1]
    with pytest.raises(DeviceError, match="4 processes need a GPU each"):
        choose_devices(settings(), 0, 4)
    with pytest.raises(DeviceError, match=r"leave training\.model_gpu out"):
        choose_devices(settings(model_gpu=0), 0, 2)


def test_precision_follows_the_settings_and_the_processor(monkeypatch):
    from model.loop import devices

    cpu = torch.device("cpu")
    for capable, wanted in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(devices, "computes_in_bfloat16", lambda capable=capable: capable)
        assert autocast_type(settings(use_mixed_precision=True), cpu) == wanted
    assert autocast_type(settings(use_mixed_precision=False), cpu) is None
    assert autocast_type(settings(use_mixed_precision=True, mixed_precision="float16"), cpu) == torch.float16
