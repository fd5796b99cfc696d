import sys

from imports import third_party

from components.register.run import REQUIREMENTS


def test_the_registered_model_pins_all_that_speaking_imports():
    distributions = {"yaml": "PyYAML", "espeakng_loader": "espeakng-loader"}
    needed = third_party("model.synthesis") | {"mlflow", "pandas"}
    needed -= {"h5py"}  # reads a published file once; a registered voice carries those weights as safetensors
    needed = {distributions.get(name, name) for name in needed if name not in sys.stdlib_module_names}
    assert needed <= set(REQUIREMENTS), needed - set(REQUIREMENTS)
