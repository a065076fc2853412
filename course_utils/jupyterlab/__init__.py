"""JupyterLab as a lesson wants it: quiet, and with notebooks that open unchanged.

Two files beside this one go into Jupyter's own folders when the course is installed.
``page.json`` turns off what nobody asked for: the question about news, the menu of
nbgrader, and the button that leads to another program. ``server.json`` loads this
module into Jupyter's server.
"""

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Say to the server that this module extends it."""
    return [{"module": "course_utils.jupyterlab"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Hand notebooks out as if this machine's own Python had run them.

    JupyterLab writes the version of the kernel's Python into a notebook as soon as it
    is open. Where that is another than the notebook names, the notebook would count as
    changed before anybody has touched it, and would be saved so.

    Parameters
    ----------
    server : ServerApp
        The server.
    """
    from ipykernel.ipkernel import IPythonKernel
    from jupyter_core.utils import ensure_async

    manager = type(server.contents_manager)
    read = manager.get

    async def get(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        model = await ensure_async(read(self, *args, **kwargs))
        if model["type"] == "notebook" and model["content"]:
            metadata = model["content"]["metadata"]
            if metadata.get("kernelspec", {}).get("name") == "python3":
                metadata["language_info"] = dict(IPythonKernel.language_info)
        return model

    manager.get = get
