// What test_sdks.py does with the Python SDK, with the JavaScript one: prints {"call": "works" or the error's code}.
import assert from "node:assert/strict";
import OpenAI, { APIError, AuthenticationError, ConflictError, NotFoundError } from "openai";

const client = new OpenAI({ apiKey: process.env.TOKEN, baseURL: process.env.BASE_URL, maxRetries: 2 });
const model = "gpt-4o-mini";
const say = (content) => ({ model, messages: [{ role: "user", content }] });
const weather = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
const runnable = [{ type: "function", function: { ...weather[0].function, function: () => "sunny", parse: JSON.parse } }];
const completions = client.chat.completions;

async function textOf(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  return text;
}

async function until(items) {
  const texts = [];
  for await (const item of items) texts.push(item.content[0].text);
  return texts;
}

const calls = {
  "chat.completions.create": async () => {
    const reply = await completions.create(say("Hi"));
    assert.equal(reply.choices[0].message.content, "echo: Hi");
    assert.equal(reply._request_id, reply.id);
  },
  "chat.completions.create, stream": async () => {
    assert.equal(await textOf(await completions.create({ ...say("one two"), stream: true })), "echo: one two");
  },
  "chat.completions.create, stream with usage": async () => {
    const stream = await completions.create({ ...say("Hi"), stream: true, stream_options: { include_usage: true } });
    let usage;
    for await (const chunk of stream) usage = chunk.usage ?? usage;
    assert.ok(usage.total_tokens > 0);
  },
  "with_raw_response": async () => {
    const { data, response } = await completions.create(say("Hi")).withResponse();
    assert.equal(response.headers.get("x-request-id"), data.id);
  },
  "with_streaming_response": async () => {
    const response = await completions.create(say("Hi")).asResponse();
    assert.equal((await response.json()).reply, "echo: Hi");
  },
  "chat.completions.stream": async () => {
    const stream = completions.stream(say("one two"));
    assert.equal((await stream.finalChatCompletion()).choices[0].message.content, "echo: one two");
  },
  "tool calls": async () => {
    const { id } = await client.conversations.create();
    const first = await completions.create({ ...say("weather"), tools: weather, conversation_id: id });
    const call = first.choices[0].message.tool_calls[0];
    assert.equal(call.function.arguments, '{"city": "Oslo"}');
    const result = { role: "tool", tool_call_id: call.id, content: "sunny" };
    const second = await completions.create({ model, messages: [result], tools: weather, conversation_id: id });
    assert.equal(second.choices[0].message.content, "echo: sunny");
  },
  "tool calls, streamed": async () => {
    const stream = completions.stream({ ...say("weather"), tools: weather });
    const message = (await stream.finalChatCompletion()).choices[0].message;
    assert.equal(message.tool_calls[0].function.arguments, '{"city": "Oslo"}');
  },
  "response_format, JSON schema": async () => {
    const schema = { type: "object", properties: { n: { type: "integer" } } };
    const response_format = { type: "json_schema", json_schema: { name: "n", schema } };
    const reply = await completions.parse({ ...say("json"), response_format });
    assert.deepEqual(reply.choices[0].message.parsed, { n: 5 });
  },
  "messages.append(message), and a next turn": async () => {
    const { message } = (await completions.create(say("Hi"))).choices[0];
    const messages = [...say("Hi").messages, message, ...say("Ho").messages];
    assert.equal((await completions.create({ model, messages })).choices[0].message.content, "echo: Ho");
  },
  "the same after chat.completions.stream": async () => {
    const { messages } = say("Hi");
    for (const text of ["Ho", "Hu"]) {
      const completion = await completions.stream({ model, messages }).finalChatCompletion();
      messages.push(completion.choices[0].message, ...say(text).messages);
    }
    assert.equal((await completions.create({ model, messages })).choices[0].message.content, "echo: Hu");
  },
  "the same after chat.completions.parse": async () => {
    const response_format = { type: "json_schema", json_schema: { name: "n", schema: { type: "object" } } };
    const { message } = (await completions.parse({ ...say("json"), response_format })).choices[0];
    const messages = [...say("json").messages, message, ...say("json").messages];
    const reply = await completions.parse({ model, messages, response_format });
    assert.deepEqual(reply.choices[0].message.parsed, { n: 5 });
  },
  "a loop of tools": async () => {
    assert.equal(await completions.runTools({ ...say("weather"), tools: runnable }).finalContent(), "echo: sunny");
  },
  "a loop of tools, streamed": async () => {
    const runner = completions.runTools({ ...say("weather"), tools: runnable, stream: true });
    assert.equal(await runner.finalContent(), "echo: sunny");
  },
  "image parts": async () => {
    const image = { type: "image_url", image_url: { url: "https://example.com/cat.png" } };
    await completions.create(say([{ type: "text", text: "What?" }, image]));
  },
  "temperature, seed, stop, logprobs, …": async () => {
    await completions.create({
      ...say("Hi"), temperature: 0.5, top_p: 1, max_completion_tokens: 50, seed: 1, stop: ["x"], logprobs: true,
      top_logprobs: 2, user: "u", metadata: { a: "b" }, service_tier: "auto",
      presence_penalty: 0, frequency_penalty: 0, logit_bias: { 50256: -100 },
    });
  },
  "a conversation and an Idempotency-Key": async () => {
    const { id } = await client.conversations.create();
    const options = { headers: { "Idempotency-Key": "js-1" } };
    const first = await completions.create({ ...say("Hi"), conversation_id: id }, options);
    assert.deepEqual(await completions.create({ ...say("Hi"), conversation_id: id }, options), first);
    const key = completions.create({ ...say("Ho"), conversation_id: id }, options);
    await assert.rejects(key, (e) => e instanceof ConflictError && e.code === "idempotency_key_reused");
  },
  "a conversation, stream": async () => {
    const { id } = await client.conversations.create();
    for (let turn = 0; turn < 2; turn += 1) {
      let text = "";
      for await (const chunk of await completions.create({ ...say("one two"), stream: true, conversation_id: id })) {
        text += chunk.choices[0].delta.content ?? "";
      }
      assert.equal(text, "echo: one two");
    }
  },
  "an automatic retry with a key": async () => {
    const options = { headers: { "Idempotency-Key": "js-2" } };
    assert.equal((await completions.create(say("flaky js"), options)).choices[0].message.content, "echo: flaky js");
  },
  "models.list, retrieve": async () => {
    const names = [];
    for await (const each of client.models.list()) names.push(each.id);
    assert.equal((await client.models.retrieve(names[0])).id, "gpt-4o-mini");
  },
  "conversations.create, retrieve, update, delete": async () => {
    const made = await client.conversations.create({ metadata: { a: "1" } });
    assert.deepEqual((await client.conversations.retrieve(made.id)).metadata, { a: "1" });
    assert.deepEqual((await client.conversations.update(made.id, { metadata: { b: "2" } })).metadata, { b: "2" });
    assert.equal((await client.conversations.delete(made.id)).deleted, true);
    await assert.rejects(client.conversations.retrieve(made.id), NotFoundError);
  },
  "conversations.items.create, list, retrieve, delete": async () => {
    const { id } = await client.conversations.create();
    for (const start of [0, 15, 30]) {
      const items = Array.from({ length: 15 }, (_, n) => ({ role: "user", content: String(start + n) }));
      await client.conversations.items.create(id, { items });
    }
    const all = Array.from({ length: 45 }, (_, n) => String(n));
    assert.deepEqual(await until(client.conversations.items.list(id, { order: "asc", limit: 20 })), all);
    assert.deepEqual(await until(client.conversations.items.list(id)), all.reverse());
    const [last] = (await client.conversations.items.list(id, { limit: 1 })).data;
    assert.equal((await client.conversations.items.retrieve(last.id, { conversation_id: id })).id, last.id);
    assert.equal((await client.conversations.items.delete(last.id, { conversation_id: id })).id, id);
  },
  "an error in the middle of a stream": async () => {
    await textOf(await completions.create({ ...say("broken"), stream: true }));
  },
  "a wrong token": async () => {
    const stranger = new OpenAI({ apiKey: "wrong", baseURL: process.env.BASE_URL });
    try {
      await stranger.models.list();
    } catch (e) {
      assert.ok(e instanceof AuthenticationError);
      throw e;
    }
  },
  "n=2": () => completions.create({ ...say("Hi"), n: 2 }),
  "an unknown field": () => completions.create({ ...say("Hi"), modalities: ["audio"] }),
  "chat.completions.list": () => completions.list(),
  "responses.create": () => client.responses.create({ model, input: "Hi" }),
  "embeddings.create": () => client.embeddings.create({ model, input: "Hi" }),
  "files.list": () => client.files.list(),
};

const outcomes = {};
const wanted = JSON.parse(process.env.ONLY ?? "null") ?? Object.keys(calls);
for (const [name, call] of Object.entries(calls).filter(([name]) => wanted.includes(name))) {
  try {
    await call();
    outcomes[name] = "works";
  } catch (e) {
    if (!(e instanceof APIError)) throw new Error(name, { cause: e });
    outcomes[name] = e.code;
  }
}
console.log(JSON.stringify(outcomes));
