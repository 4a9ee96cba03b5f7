// LangChain for JavaScript: ChatOpenAI of @langchain/openai.
import assert from "node:assert/strict";
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { concat } from "@langchain/core/utils/stream";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";
import * as say from "../report.mjs";

const fields = { model: say.MODEL, apiKey: say.TOKEN, configuration: { baseURL: say.BASE_URL } };
const model = new ChatOpenAI(fields);
const user = (content) => new HumanMessage(content);
const weather = tool(({ city }) => `sunny in ${city}`, {
  name: "weather",
  description: "Return the weather of a city.",
  schema: z.object({ city: z.string() }),
});
const City = z.object({ name: z.string(), degrees: z.number().int() });
const withTools = model.bindTools([weather]);
const results = (message) => Promise.all(message.tool_calls.map((call) => weather.invoke(call)));

async function joined(stream) {
  let message;
  for await (const chunk of await stream) message = message === undefined ? chunk : concat(message, chunk);
  return message;
}

async function toolLoop(ask) {
  const messages = [user(say.WEATHER)];
  messages.push(await ask(messages));
  messages.push(...(await results(messages.at(-1))));
  messages.push(await ask(messages));
  assert.equal(messages.at(-1).content, say.SUNNY);
  messages.push(user(say.THANKS));
  assert.equal((await ask(messages)).content, say.WELCOME);
}

async function twoTurns(ask) {
  const messages = [user(say.NAME)];
  messages.push(await ask(messages));
  assert.equal(messages.at(-1).content, say.NICE);
  messages.push(user(say.ASK));
  assert.equal((await ask(messages)).content, say.KNOWN);
}

// What llmapi adds to OpenAI's fields goes into modelKwargs.
const remembering = async () => new ChatOpenAI({ ...fields, modelKwargs: { conversation_id: await say.conversation() } });

const complete = (text, own = {}) => new ChatOpenAI({ ...fields, maxRetries: 0, ...own }).invoke(text);

await say.report(
  {
    "two turns": () => twoTurns((messages) => model.invoke(messages)),
    "two turns, streamed": () => twoTurns((messages) => joined(model.stream(messages))),
    "tool loop": () => toolLoop((messages) => withTools.invoke(messages)),
    "tool loop, streamed": () => toolLoop((messages) => joined(withTools.stream(messages))),
    "structured output": async () => {
      assert.deepEqual(await model.withStructuredOutput(City).invoke(say.WARMEST), { name: "Rome", degrees: 21 });
    },
    "structured output by a tool": async () => {
      const byTool = model.withStructuredOutput(City, { method: "functionCalling" });
      assert.deepEqual(await byTool.invoke(say.WARMEST), { name: "Rome", degrees: 21 });
    },
    "a picture and a PDF": async () => {
      const content = [
        { type: "text", text: say.LOOK },
        { type: "image", data: say.PICTURE, mimeType: "image/png" },
        { type: "file", data: say.DOCUMENT, mimeType: "application/pdf", metadata: { filename: "a.pdf" } },
      ];
      const message = new HumanMessage({ contentBlocks: content });
      assert.equal((await model.invoke([message])).content, say.SEEN);
    },
    "conversation": async () => {
      const own = await remembering();
      assert.equal((await own.invoke([user(say.NAME)])).content, say.NICE);
      assert.equal((await joined(own.stream([user(say.ASK)]))).content, say.KNOWN);
    },
    "conversation, tool loop": async () => {
      const own = (await remembering()).bindTools([weather]);
      const call = await own.invoke([user(say.WEATHER)]);
      assert.equal((await own.invoke(await results(call))).content, say.SUNNY);
      assert.equal((await own.invoke([user(say.THANKS)])).content, say.WELCOME);
    },
  },
  {
    "a wrong token": () => complete(say.NAME, { apiKey: say.WRONG_TOKEN }),
    "an unknown model": () => complete(say.NAME, { model: say.UNKNOWN_MODEL }),
    "a prompt too long": () => complete(say.TOO_LONG),
    "the provider's limit": () => complete(say.BUSY),
  },
  (error) => error.lc_error_code ?? error.constructor.name,
);
