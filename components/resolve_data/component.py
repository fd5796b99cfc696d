"""The `resolve_data` step as a pipeline component."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def resolve_data(
    data_hash: str,
    evaluation_data: str,
    remote: str,
    data: dsl.Output[dsl.Dataset],
    html: dsl.Output[dsl.HTML],
) -> None:
    """Fetches the corpora of training and of evaluation by their content hashes into the state folder."""
    from components.runner import run_step

    run_step("resolve_data", data, {"html": html}, data_hash=data_hash, evaluation_data=evaluation_data, remote=remote)
