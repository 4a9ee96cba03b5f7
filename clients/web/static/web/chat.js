// A plain chat page: one conversation with streamed replies. `store` keeps what must survive a reload.
const $ = (id) => document.getElementById(id);
const store = {
  get: (name) => localStorage.getItem(`llmapi.${name}`),
  set: (name, value) => localStorage.setItem(`llmapi.${name}`, value),
  remove: (...names) => names.forEach((name) => localStorage.removeItem(`llmapi.${name}`)),
};

// The page may be below a path of its host, and then the API is, too.
const API = new URL("../../v1", import.meta.url).href;

class Problem extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

async function api(path, { method = "GET", body, key, keepalive = false } = {}) {
  const headers = { Authorization: `Bearer ${store.get("token")}` };
  if (body) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  let response;
  try {
    response = await fetch(`${API}${path}`, { method, headers, keepalive, body: body && JSON.stringify(body) });
  } catch {
    throw new Problem("The server cannot be reached. Your message is saved in this browser. Try again.");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: { message: `The server answered ${response.status}.` } }));
  throw new Problem(error.message, error.code);
}

// Not randomUUID: a page that came without TLS has none.
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

// Events that only this page sees are sent in batches. An event keeps its id until the server has it, so it counts once.
const unsent = [];
const BATCH_MS = 10_000;

function recordEvent(name, request_id) {
  const id = request_id ? `${request_id}.${name}` : newId();
  unsent.push({ id, name, request_id, occurred_at: Date.now() / 1000 });
  setTimeout(sendEvents, BATCH_MS);
}

async function sendEvents() {
  if (!unsent.length || !store.get("token")) return;
  const batch = unsent.splice(0, 100);
  try {
    await api("/events", { method: "POST", body: { events: batch, sent_at: Date.now() / 1000 }, keepalive: true });
  } catch (problem) {
    // Only events that did not arrive are sent again. A batch that the server refused would be refused again.
    if ([undefined, "unavailable", "rate_limit_exceeded"].includes(problem.code)) unsent.unshift(...batch);
  }
}

// Yield the data of each server-sent event, up to [DONE].
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) throw new Problem("The connection was lost. The server still finishes the reply. Try again to get it.");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
    }
  }
}

function addMessage(role, text) {
  const item = document.createElement("li");
  item.className = role;
  item.textContent = text;
  $("messages").append(item);
  $("messages").scrollTop = $("messages").scrollHeight;
  return item;
}

function addThumbs(item, request_id) {
  const buttons = ["thumbs_up", "thumbs_down"].map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = name;
    button.ariaLabel = name === "thumbs_up" ? "Good reply" : "Bad reply";
    button.ariaPressed = "false";
    button.addEventListener("click", () => {
      buttons.forEach((other) => (other.disabled = true));
      button.ariaPressed = "true";
      recordEvent(name, request_id);
    });
    return button;
  });
  item.append(...buttons);
}

function showProblem(problem) {
  $("problem").hidden = !problem;
  if (!problem) return;
  $("problem").firstElementChild.textContent = problem.message;
  $("again").hidden = !store.get("pending") || !store.get("token");
}

function updatePage() {
  const known = Boolean(store.get("token"));
  $("enter").hidden = known;
  $("chat").hidden = $("new").hidden = $("forget").hidden = !known;
  $(known ? "message" : "token").focus();
}

async function conversation() {
  if (!store.get("conversation")) {
    const response = await api("/conversations", { method: "POST", body: {} });
    store.set("conversation", (await response.json()).id);
  }
  return store.get("conversation");
}

async function history() {
  const id = store.get("conversation");
  if (!id) return;
  try {
    const { data } = await (await api(`/conversations/${id}/items?limit=100`)).json();
    for (const item of data.reverse()) addMessage(item.role, item.content.map((part) => part.text ?? `[${part.type}]`).join("\n"));
  } catch (problem) {
    if (problem.code === "conversation_not_found") store.remove("conversation", "pending");
    else showProblem(problem);
  }
}

// The pending message keeps its idempotency key until its reply is here. So it is one turn, however often it is sent.
async function deliver() {
  const { key, text } = JSON.parse(store.get("pending"));
  showProblem(null);
  $("send").lastElementChild.disabled = true;
  const mine = addMessage("user", text);
  const reply = addMessage("assistant waiting", "");
  try {
    const body = { conversation_id: await conversation(), message: text, stream: true };
    let id;
    for await (const chunk of events(await api("/chat/completions", { method: "POST", body, key }))) {
      if (chunk.error) throw new Problem(chunk.error.message, chunk.error.code);
      const text = chunk.choices[0]?.delta.content ?? "";
      if (text && !reply.textContent) recordEvent("first_token_shown", chunk.id);
      id = chunk.id;
      reply.textContent += text;
      if (chunk.incomplete_details) reply.textContent = "The model used up its tokens before its first word. Ask again.";
      $("messages").scrollTop = $("messages").scrollHeight;
    }
    store.remove("pending");
    addThumbs(reply, id);
  } catch (problem) {
    mine.remove();
    reply.remove();
    if (problem.code === "invalid_token") store.remove("token");
    if (problem.code === "conversation_not_found") {
      store.remove("conversation");
      problem.message = "This conversation was deleted. Try again to send the message in a new one.";
    }
    showProblem(problem);
    updatePage();
  } finally {
    reply.classList.remove("waiting");
    $("send").lastElementChild.disabled = false;
  }
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  store.set("token", $("token").value.trim());
  $("token").value = "";
  showProblem(null);
  updatePage();
  if (store.get("pending")) deliver();
});

$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("message").value;
  if (!text.trim() || $("send").lastElementChild.disabled) return;
  store.set("pending", JSON.stringify({ key: newId(), text }));
  $("message").value = "";
  deliver();
});

$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("send").requestSubmit();
  }
});

$("again").addEventListener("click", deliver);
$("new").addEventListener("click", () => {
  store.remove("conversation", "pending");
  $("messages").replaceChildren();
  showProblem(null);
  updatePage();
});
$("forget").addEventListener("click", () => {
  store.remove("token", "conversation", "pending");
  $("messages").replaceChildren();
  showProblem(null);
  updatePage();
});

addEventListener("visibilitychange", () => document.visibilityState === "hidden" && sendEvents());

// `make run` prints a link that has the token behind a #, which no server is sent. Only this machine's own server may be
// opened by it: anywhere else, whoever makes a link could have others write under a token of theirs.
const offered = new URLSearchParams(location.hash.slice(1)).get("token");
if (offered) {
  window.history.replaceState(null, "", location.pathname);
  if (["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) && offered !== store.get("token")) {
    store.remove("conversation", "pending");
    store.set("token", offered);
  }
}

updatePage();
recordEvent("opened");
if (store.get("token")) await history();
if (store.get("pending")) await deliver();
