#!/usr/bin/env python3
"""Holds messages (standard input: a line of JSON for each, `topic` and `payload`) against the schemas of an AsyncAPI document:
contract.py asyncapi.yaml. Prints what the document names, as JSON; says what does not fit, and fails then.

Readers may ignore fields that they do not know, but the document must know every field that a player says: unknown ones
count as errors here. Needs python3-yaml and python3-jsonschema.
"""
import json
import sys

import jsonschema
import yaml


def closed(schema):
    """The same schema, in which no other fields are allowed."""
    if isinstance(schema, list):
        return [closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {k: closed(v) for k, v in schema.items()}
    # The alternatives of `oneOf` name a part of the fields only.
    if "properties" in schema and "type" in schema:
        strict["additionalProperties"] = False
    return strict


document = yaml.safe_load(open(sys.argv[1]))
components = {"components": closed(document["components"])}
channels = document["channels"]


def check(schema, value):
    validator = jsonschema.Draft7Validator({**schema, **components}, format_checker=jsonschema.FormatChecker())
    return [f"{'/'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(value)]


def wrong(topic, payload):
    # jukebox/1/SITE/PLAYER/what[/which]
    what, *which = topic.split("/")[4:]
    if topic.split("/")[3] == "reply" or what == "reply":
        reply = json.loads(payload)
        errors = check({"$ref": "#/components/schemas/reply"}, reply)
        if reply["status"] == "ok":
            errors += check({"$ref": f"#/components/schemas/data_{reply['verb']}"}, reply["data"])
        return errors
    channel = channels["command_to_all" if topic.split("/")[3] == "all" else what]
    for name, value in zip(["kind" if what == "event" else "verb"], which):
        known = channel["parameters"][name].get("enum") or list(channel["messages"])
        if value not in known:
            return [f"{name}: {value} is not in the document"]
    message = channel["messages"].get(which[0] if what == "command" and which else what) or next(iter(channel["messages"].values()))
    if what == "command" and not payload.lstrip().startswith("{"):
        return []
    value = payload if message.get("contentType") == "text/plain" else json.loads(payload)
    return check(closed(message["payload"]), value)


schemas = document["components"]["schemas"]
seen, failed = {}, 0
for line in sys.stdin:
    m = json.loads(line)
    for error in wrong(m["topic"], m["payload"]):
        print(f"{m['topic']}: {error}\n  {m['payload']}", file=sys.stderr)
        failed += 1
print(json.dumps({
    "verbs": list(channels["command"]["messages"]),
    "answers": [n[5:] for n in schemas if n.startswith("data_")],
    "for_all": channels["command_to_all"]["parameters"]["verb"]["enum"],
    "kinds": channels["event"]["parameters"]["kind"]["enum"],
    "codes": schemas["code"]["enum"],
    "reasons": schemas["reason"]["properties"]["code"]["enum"],
}))
sys.exit(1 if failed else 0)
