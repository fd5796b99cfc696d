from vocoder_fixtures import audio, make_weights, settings  # noqa: F401 - fixtures of the tests in this folder
