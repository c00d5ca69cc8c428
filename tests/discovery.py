"""Holds a message of device discovery (on standard input) against Home Assistant's own schemas: the package `homeassistant` of PyPI.

Unknown keys are errors here; Home Assistant itself drops them without a word.
"""
import asyncio
import importlib
import json
import sys
import tempfile

from homeassistant.components.mqtt.schemas import DEVICE_DISCOVERY_SCHEMA
from homeassistant.const import __version__
from homeassistant.core import HomeAssistant


async def main(message, folder):
    HomeAssistant(folder)  # templates are parsed by the instance of their thread
    DEVICE_DISCOVERY_SCHEMA(message)
    for name, part in message["components"].items():
        platform = importlib.import_module(f"homeassistant.components.mqtt.{part.pop('platform')}")
        try:
            platform.PLATFORM_SCHEMA_MODERN({**part, "device": message["device"], "origin": message["origin"]})
        except Exception as wrong:
            sys.exit(f"{name}: {wrong}")
    print(f"Home Assistant {__version__}: {len(message['components'])} components")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(json.load(sys.stdin), folder))
