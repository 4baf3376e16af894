"""One job for Slack's own library: JSON in, JSON out."""

import json
import sys
import threading

from slack_sdk.models.blocks import Block
from slack_sdk.models.views import View
from slack_sdk.signature import Clock, SignatureVerifier
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web import WebClient


def same(ours, theirs):
    """What the library made of it, which may fill in what is left out."""
    if isinstance(ours, dict):
        return all(key in theirs and same(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs))
    return ours == theirs


def blocks(job):
    count = 0
    for message in job["messages"]:
        for ours, block in zip(message, Block.parse_all(message)):
            block.validate_json()
            theirs = json.loads(json.dumps(block.to_dict()))
            assert same(ours, theirs), (ours, theirs)
            count += 1
    return count


def views(job):
    for ours in job["views"]:
        view = View(**ours)
        view.validate_json()
        theirs = json.loads(json.dumps(view.to_dict()))
        assert same(ours, theirs), (ours, theirs)
    return len(job["views"])


class At(Clock):
    def __init__(self, moment):
        self.moment = moment

    def now(self):
        return self.moment


def sign(job):
    verifier = SignatureVerifier(job["secret"], At(job["now"]))
    headers = {"X-Slack-Request-Timestamp": str(job["timestamp"]), "X-Slack-Signature": job["signature"]}
    return {
        "signature": verifier.generate_signature(timestamp=str(job["timestamp"]), body=job["body"]),
        "valid": verifier.is_valid_request(job["body"], headers),
    }


def methods(job):
    """Calls what Steward calls, so that it is known to be spoken as Slack speaks it."""
    client = WebClient(token=job["token"], base_url=job["api"] + "/")
    assert client.auth_test()["user_id"]
    channel = client.conversations_open(users="U1")["channel"]["id"]
    metadata = {"event_type": "steward_message", "event_payload": {"id": "1"}}
    posted = client.chat_postMessage(channel=channel, text="x", blocks=job["blocks"], metadata=metadata)
    history = client.conversations_history(channel=channel, include_all_metadata=True)
    assert history["messages"][0]["metadata"] == metadata
    client.chat_update(channel=channel, ts=posted["ts"], text="y", blocks=job["blocks"])
    client.chat_postEphemeral(channel=channel, user="U1", text="z", blocks=job["blocks"])
    client.views_open(trigger_id=job["trigger"], view=job["view"])
    return True


def socket(job):
    """Listens, takes one envelope, acknowledges it."""
    client = SocketModeClient(app_token=job["app_token"], web_client=WebClient(base_url=job["api"] + "/"))
    taken, heard = threading.Event(), {}

    def take(client, request):
        heard.update(type=request.type, payload=request.payload)
        client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id, payload={"text": "ok"}))
        taken.set()

    client.socket_mode_request_listeners.append(take)
    client.connect()
    assert taken.wait(60)
    client.close()
    return heard


job = json.load(sys.stdin)
json.dump({"blocks": blocks, "views": views, "sign": sign, "methods": methods, "socket": socket}[job["job"]](job), sys.stdout)
