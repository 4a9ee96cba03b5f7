"""A peer to measure against: a chat backend as people write it in an afternoon.

FastAPI, SQLAlchemy, SQLite, and the SDK's typed calls.
"""

import hashlib
import json
import os
import time
import uuid
from collections import defaultdict, deque
from datetime import UTC, datetime

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel
from sqlalchemy import Column, DateTime, Integer, String, Text, create_engine
from sqlalchemy.orm import Session, declarative_base, sessionmaker

engine = create_engine("sqlite:///" + os.environ["DB"], connect_args={"check_same_thread": False})
SessionLocal = sessionmaker(bind=engine)
Base = declarative_base()


def now():
    return datetime.now(UTC)


class Conversation(Base):
    __tablename__ = "conversations"
    conversation_id = Column(String, primary_key=True)
    created_at = Column(DateTime, default=now)


class Message(Base):
    __tablename__ = "messages"
    id = Column(Integer, primary_key=True)
    conversation_id = Column(String, index=True)
    role = Column(String)
    content = Column(Text)
    created_at = Column(DateTime, default=now)


class UsageEvent(Base):
    __tablename__ = "usage_events"
    id = Column(Integer, primary_key=True)
    request_id = Column(String)
    conversation_id = Column(String)
    model = Column(String)
    prompt_tokens = Column(Integer)
    completion_tokens = Column(Integer)
    total_tokens = Column(Integer)
    latency_ms = Column(Integer)
    created_at = Column(DateTime, default=now)


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"
    id = Column(Integer, primary_key=True)
    idempotency_key = Column(String, unique=True)
    request_hash = Column(String)
    response_json = Column(Text)
    created_at = Column(DateTime, default=now)


class AnalyticsEvent(Base):
    __tablename__ = "analytics_events"
    id = Column(Integer, primary_key=True)
    event_name = Column(String)
    user_id = Column(String)
    conversation_id = Column(String)
    request_id = Column(String)
    metadata_json = Column(Text)
    created_at = Column(DateTime, default=now)


Base.metadata.create_all(engine)
app = FastAPI()
client = OpenAI(api_key=os.environ["OPENAI_API_KEY"], base_url=os.environ["OPENAI_BASE_URL"])
LIMIT = int(os.environ.get("RATE_LIMIT_PER_MIN", "1000000"))
window = defaultdict(deque)


def db():
    s = SessionLocal()
    try:
        yield s
    finally:
        s.close()


def auth(authorization: str = Header("")):
    if authorization != "Bearer " + os.environ["CLIENT_API_TOKEN"]:
        raise HTTPException(401, "bad token")
    q = window[authorization]
    t = time.time()
    while q and q[0] < t - 60:
        q.popleft()
    if len(q) >= LIMIT:
        raise HTTPException(429, "rate limit")
    q.append(t)


class ChatIn(BaseModel):
    conversation_id: str
    message: str


@app.get("/health")
def health():
    return {"ok": True}


@app.post("/v1/conversations", dependencies=[Depends(auth)])
def create(s: Session = Depends(db)):
    c = Conversation(conversation_id="c_" + uuid.uuid4().hex)
    s.add(c)
    s.commit()
    return {"conversation_id": c.conversation_id}


@app.post("/v1/chat/completions", dependencies=[Depends(auth)])
def chat(body: ChatIn, s: Session = Depends(db), idempotency_key: str | None = Header(None)):
    h = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
    if idempotency_key:
        row = s.query(IdempotencyKey).filter_by(idempotency_key=idempotency_key).first()
        if row:
            if row.request_hash != h:
                raise HTTPException(409, "Idempotency key reused with different request")
            return json.loads(row.response_json)
    if not s.get(Conversation, body.conversation_id):
        raise HTTPException(404)
    s.add(Message(conversation_id=body.conversation_id, role="user", content=body.message))
    s.commit()
    rows = (
        s.query(Message)
        .filter_by(conversation_id=body.conversation_id)
        .order_by(Message.id.desc())
        .limit(20)
        .all()[::-1]
    )
    rid = "r_" + uuid.uuid4().hex
    t = time.perf_counter()
    r = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": m.role, "content": m.content} for m in rows]
    )
    ms = int((time.perf_counter() - t) * 1000)
    reply = r.choices[0].message.content
    u = r.usage
    out = {
        "request_id": rid,
        "reply": reply,
        "usage": {
            "prompt_tokens": u.prompt_tokens,
            "completion_tokens": u.completion_tokens,
            "total_tokens": u.total_tokens,
            "latency_ms": ms,
        },
    }
    s.add(Message(conversation_id=body.conversation_id, role="assistant", content=reply))
    s.add(
        UsageEvent(
            request_id=rid,
            conversation_id=body.conversation_id,
            model=r.model,
            prompt_tokens=u.prompt_tokens,
            completion_tokens=u.completion_tokens,
            total_tokens=u.total_tokens,
            latency_ms=ms,
        )
    )
    s.add(
        AnalyticsEvent(
            event_name="chat_success",
            user_id="default",
            conversation_id=body.conversation_id,
            request_id=rid,
            metadata_json="{}",
        )
    )
    if idempotency_key:
        s.add(IdempotencyKey(idempotency_key=idempotency_key, request_hash=h, response_json=json.dumps(out)))
    s.commit()
    return out
