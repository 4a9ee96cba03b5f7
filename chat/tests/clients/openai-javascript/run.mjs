// The official JavaScript SDK, as its README and helpers.md use it.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import * as say from "../report.mjs";

const client = new OpenAI({ baseURL: say.BASE_URL, apiKey: say.TOKEN });
const completions = client.chat.completions;
const model = say.MODEL;
const user = (content) => ({ role: "user", content });
const weather = ({ city }) => `sunny in ${city}`;
const parameters = z.object({ city: z.string() });
const description = "Return the weather of a city.";
const runnable = [zodFunction({ name: "weather", description, parameters, function: weather })];
const tools = [zodFunction({ name: "weather", description, parameters })];
const City = z.object({ name: z.string(), degrees: z.number().int() });

const results = (message) =>
  message.tool_calls.map((call) => {
    return { role: "tool", tool_call_id: call.id, content: weather(JSON.parse(call.function.arguments)) };
  });

// Read a stream as OpenAI's quickstart does, which takes every chunk to have a choice.
async function streamedText(body) {
  let text = "";
  for await (const chunk of await completions.create({ model, stream: true, ...body })) {
    text += chunk.choices[0].delta.content ?? "";
  }
  return text;
}

const complete = (text, options = {}, model = say.MODEL) =>
  client.withOptions({ maxRetries: 0, ...options }).chat.completions.create({ model, messages: [user(text)] });

await say.report(
  {
    "two turns": async () => {
      const messages = [user(say.NAME)];
      const first = await completions.create({ model, messages });
      assert.equal(first.choices[0].message.content, say.NICE);
      messages.push(first.choices[0].message, user(say.ASK));
      const second = await completions.create({ model, messages });
      assert.equal(second.choices[0].message.content, say.KNOWN);
    },
    "two turns, streamed": async () => {
      const messages = [user(say.NAME)];
      const text = await streamedText({ messages });
      assert.equal(text, say.NICE);
      messages.push({ role: "assistant", content: text }, user(say.ASK));
      const { message } = (await completions.stream({ model, messages }).finalChatCompletion()).choices[0];
      assert.equal(message.content, say.KNOWN);
      messages.push(message, user(say.THANKS));
      assert.equal(await streamedText({ messages }), say.WELCOME);
    },
    "tool loop": async () => {
      const runner = completions.runTools({ model, messages: [user(say.WEATHER)], tools: runnable });
      assert.equal(await runner.finalContent(), say.SUNNY);
      const messages = [...runner.messages, user(say.THANKS)];
      assert.equal((await completions.create({ model, messages, tools })).choices[0].message.content, say.WELCOME);
    },
    "tool loop, streamed": async () => {
      const runner = completions.runTools({ model, messages: [user(say.WEATHER)], tools: runnable, stream: true });
      assert.equal(await runner.finalContent(), say.SUNNY);
      const messages = [...runner.messages, user(say.THANKS)];
      const { message } = (await completions.stream({ model, messages, tools }).finalChatCompletion()).choices[0];
      assert.equal(message.content, say.WELCOME);
    },
    "structured output": async () => {
      const messages = [user(say.WARMEST)];
      const response_format = zodResponseFormat(City, "city");
      const { message } = (await completions.parse({ model, messages, response_format })).choices[0];
      assert.deepEqual(message.parsed, { name: "Rome", degrees: 21 });
      messages.push(message, user(say.THANKS));
      const again = await completions.parse({ model, messages, response_format });
      assert.deepEqual(again.choices[0].message.parsed, { name: "Rome", degrees: 21 });
    },
    "a picture and a PDF": async () => {
      const file = { filename: "a.pdf", file_data: `data:application/pdf;base64,${say.DOCUMENT}` };
      const content = [
        { type: "text", text: say.LOOK },
        { type: "image_url", image_url: { url: `data:image/png;base64,${say.PICTURE}` } },
        { type: "file", file },
      ];
      const reply = await completions.create({ model, messages: [user(content)] });
      assert.equal(reply.choices[0].message.content, say.SEEN);
    },
    "conversation": async () => {
      const conversation_id = (await client.conversations.create()).id;
      const first = await completions.create({ model, messages: [user(say.NAME)], conversation_id });
      assert.equal(first.choices[0].message.content, say.NICE);
      assert.equal(await streamedText({ messages: [user(say.ASK)], conversation_id }), say.KNOWN);
    },
    "conversation, tool loop": async () => {
      const conversation_id = (await client.conversations.create()).id;
      const ask = async (messages) =>
        (await completions.create({ model, messages, tools, conversation_id })).choices[0].message;
      const message = await ask([user(say.WEATHER)]);
      assert.equal((await ask(results(message))).content, say.SUNNY);
      assert.equal((await ask([user(say.THANKS)])).content, say.WELCOME);
    },
  },
  {
    "a wrong token": () => complete(say.NAME, { apiKey: say.WRONG_TOKEN }),
    "an unknown model": () => complete(say.NAME, {}, say.UNKNOWN_MODEL),
    "a prompt too long": () => complete(say.TOO_LONG),
    "the provider's limit": () => complete(say.BUSY),
  },
);
