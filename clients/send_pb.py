#!/usr/bin/env python
"""Send one message in Protobuf and print the reply.

    TOKEN=<client token> CID=<conversation id> python clients/send_pb.py "Hello!"

Without CID, it first creates a conversation.
"""

import argparse
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from google.protobuf.message import Message

from protos.chat_pb2 import ChatRequest, ChatResponse, Conversation, ConversationRequest, Error

MEDIA_TYPE = "application/x-protobuf"


def post(url: str, message: Message, token: str, key: str | None = None) -> bytes:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
    if key:
        headers["Idempotency-Key"] = key
    request = urllib.request.Request(url, message.SerializeToString(), headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return bytes(answer.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("message", nargs="?", default="Hello in Protobuf!")
    parser.add_argument("--url", default=os.environ.get("URL", "http://127.0.0.1:8080"), help="the server (or URL)")
    parser.add_argument("--token", default=os.environ.get("TOKEN"), help="a client token (or TOKEN)")
    parser.add_argument("--conversation", default=os.environ.get("CID"), help="a conversation id (or CID)")
    parser.add_argument("--key", help="an Idempotency-Key")
    args = parser.parse_args()
    if not args.token:
        parser.error("No client token; set TOKEN or give --token.")
    try:
        conversation_id = args.conversation
        if not conversation_id:
            answer = post(f"{args.url}/v1/conversations", ConversationRequest(), args.token)
            conversation_id = Conversation.FromString(answer).id
        request = ChatRequest(conversation_id=conversation_id, message=args.message)
        reply = ChatResponse.FromString(post(f"{args.url}/v1/chat/completions", request, args.token, args.key))
    except urllib.error.HTTPError as exc:
        body = exc.read()
        is_protobuf = exc.headers.get_content_type() == MEDIA_TYPE
        sys.exit(f"{exc.code}: {Error.FromString(body) if is_protobuf else body.decode()}")
    except urllib.error.URLError as exc:
        sys.exit(f"{args.url} cannot be reached: {exc.reason}; check --url and that the server runs.")
    print(reply)


if __name__ == "__main__":
    main()
