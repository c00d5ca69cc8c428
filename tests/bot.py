#!/usr/bin/env python3
"""A bot as a company would write it: sends one command over MQTT 5 and prints the player's reply (JSON).

    JUKEBOX_PASSWORD=... tests/bot.py --port 8883 --user bot --ca ca.pem hq/lobby add waterloo

Needs paho-mqtt (Debian: python3-paho-mqtt, 1.6; newer ones work too).
"""
import argparse
import json
import os
import queue
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

parser = argparse.ArgumentParser()
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=8883)
parser.add_argument("--user", default="bot")
parser.add_argument("--ca", help="PEM file of the office's CA; without it the connection is plain")
parser.add_argument("--timeout", type=float, default=20)
parser.add_argument("player", help="SITE/PLAYER")
parser.add_argument("verb")
parser.add_argument("text", nargs="?", default="", help="the song, or a JSON object")
args = parser.parse_args()

site, player = args.player.split("/")
command = json.loads(args.text) if args.text.startswith("{") else ({"text": args.text} if args.text else {})
command.setdefault("id", str(uuid.uuid4()))
command.setdefault("by", "bot.py")
back = f"jukebox/1/{site}/reply/{uuid.uuid4().hex}"
replies = queue.Queue()

# paho 2 wants to be told which callbacks it gets.
versions = getattr(mqtt, "CallbackAPIVersion", None)
client = mqtt.Client(*([versions.VERSION2] if versions else []), protocol=mqtt.MQTTv5)
client.username_pw_set(args.user, os.environ.get("JUKEBOX_PASSWORD"))
if args.ca:
    client.tls_set(ca_certs=args.ca)


def on_connect(client, *_):
    client.subscribe(back, qos=1)


def on_subscribe(client, *_):
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = back
    properties.CorrelationData = b"1"
    properties.MessageExpiryInterval = 30
    client.publish(f"jukebox/1/{site}/{player}/command/{args.verb}", json.dumps(command), qos=1, properties=properties)


client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = lambda client, userdata, message: replies.put(message)
client.connect(args.host, args.port)
client.loop_start()
try:
    reply = replies.get(timeout=args.timeout)
except queue.Empty:
    sys.exit(f"no reply from {args.player} in {args.timeout:g} s")
finally:
    client.loop_stop()
if getattr(reply.properties, "CorrelationData", None) != b"1":
    sys.exit("the reply does not carry our correlation data")
print(reply.payload.decode())
