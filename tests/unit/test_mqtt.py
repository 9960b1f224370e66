"""The contract with paho: what the MQTT client overrides is there."""

from __future__ import annotations

import ast
import inspect

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from app.mqtt import client as client_module

# --- the contract with paho


# What is used of paho that is not public; a new version of paho must keep them, with their meaning.
PRIVATE_MEMBERS = {
    "_in_packet",
    "_keepalive",
    "_last_bytes_received",
    "_loop_rc_handle",
    "_out_packet",
    "_packet_handle",
    "_ping_t",
    "_sock_close",
}


def private_names(tree):
    """Return the names with a leading underscore that are used of `self` or `super()`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            if isinstance(owner, ast.Name) and owner.id in {"self", "super"}:
                found.add(node.attr)
    return found


def own_names(tree):
    """Return the names that the class itself defines: its methods, and what its `__init__` assigns."""
    methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    stored = [
        node.attr
        for method in methods
        if method.name == "__init__"
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    ]
    return {method.name for method in methods} | set(stored)


def test_paho_has_every_private_member_that_the_client_uses_and_none_that_it_defines():
    """A member that a new paho drops, renames, or begins to use under a name of ours would break in silence."""
    tree = ast.parse(inspect.getsource(client_module.BridgeClient))
    own = own_names(tree)
    assert private_names(tree) - own == PRIVATE_MEMBERS
    client = paho.Client(CallbackAPIVersion.VERSION2)
    assert [name for name in sorted(PRIVATE_MEMBERS) if not hasattr(client, name)] == []
    taken = {name for name in own if name.startswith("_") and name != "__init__" and hasattr(client, name)}
    assert taken == {"_create_socket"}, "overridden: `reconnect` calls it for a socket"
    assert "self._sock = self._create_socket()" in inspect.getsource(paho.Client.reconnect)


def test_paho_has_every_public_method_that_the_client_overrides():
    """What is overridden must still be what paho calls and promises."""
    overridden = {"loop_read", "loop_write", "loop_misc", "want_write"}
    public = {name for name in vars(client_module.BridgeClient) if not name.startswith("_")}
    assert public & set(dir(paho.Client)) == overridden


def test_packets_have_the_fields_that_paho_gives_them():
    """The client puts packets of its own into paho's queues."""
    source = inspect.getsource(client_module.BridgeClient)
    literals = [
        {key.value for key in node.keys}
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Dict) and node.keys
    ]
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client._packet_queue(paho.PINGREQ, bytearray(b"\xc0\x00"), 0, 0)
    assert literals == [set(client._in_packet), set(client._out_packet[0])]
