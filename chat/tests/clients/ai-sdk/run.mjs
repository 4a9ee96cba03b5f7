// Vercel's AI SDK with the provider that the first argument names: @ai-sdk/openai or @ai-sdk/openai-compatible.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";
import * as say from "../report.mjs";

const compatible = process.argv[2] === "openai-compatible";
const fields = { baseURL: say.BASE_URL, apiKey: say.TOKEN };
const own = { name: "llmapi", includeUsage: true, supportsStructuredOutputs: true };
const modelOf = (name, options) =>
  compatible
    ? createOpenAICompatible({ ...own, ...fields, ...options }).chatModel(name)
    : createOpenAI({ ...fields, ...options }).chat(name); // openai(…) would speak the Responses API
const model = modelOf(say.MODEL);
const user = (content) => ({ role: "user", content });
const tools = {
  weather: tool({
    description: "Return the weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const City = z.object({ name: z.string(), degrees: z.number().int() });

// Both resolve to {text, responseMessages, usage}. A stream's errors are thrown, as the documents ask for.
const generate = (options) => generateText({ model, stopWhen: isStepCount(5), ...options });
async function stream(options) {
  let failure;
  const onError = ({ error }) => (failure = error);
  const result = streamText({ model, stopWhen: isStepCount(5), onError, ...options });
  let text = "";
  for await (const delta of result.textStream) text += delta;
  if (failure) throw failure;
  return { text, responseMessages: await result.responseMessages, usage: await result.usage };
}

async function twoTurns(ask) {
  const messages = [user(say.NAME)];
  const first = await ask({ messages });
  assert.equal(first.text, say.NICE);
  assert.ok(first.usage.totalTokens > 0, "no usage");
  messages.push(...first.responseMessages, user(say.ASK));
  assert.equal((await ask({ messages })).text, say.KNOWN);
}

async function toolLoop(ask) {
  const messages = [user(say.WEATHER)];
  const first = await ask({ messages, tools });
  assert.equal(first.text, say.SUNNY);
  messages.push(...first.responseMessages, user(say.THANKS));
  assert.equal((await ask({ messages, tools })).text, say.WELCOME);
}

const complete = (prompt, options = {}, name = say.MODEL) =>
  generateText({ model: modelOf(name, options), prompt, maxRetries: 0 });

await say.report(
  {
    "two turns": () => twoTurns(generate),
    "two turns, streamed": () => twoTurns(stream),
    "tool loop": () => toolLoop(generate),
    "tool loop, streamed": () => toolLoop(stream),
    "structured output": async () => {
      const { output } = await generateText({ model, output: Output.object({ schema: City }), prompt: say.WARMEST });
      assert.deepEqual(output, { name: "Rome", degrees: 21 });
    },
    "a picture and a PDF": async () => {
      const content = [
        { type: "text", text: say.LOOK },
        { type: "file", mediaType: "image/png", data: say.PICTURE },
        { type: "file", mediaType: "application/pdf", data: say.DOCUMENT, filename: "a.pdf" },
      ];
      assert.equal((await generate({ messages: [user(content)] })).text, say.SEEN);
    },
    // The options of the provider's own name are sent as fields; @ai-sdk/openai sends only those that it knows.
    ...(compatible && {
      "conversation": async () => {
        const providerOptions = { llmapi: { conversation_id: await say.conversation() } };
        assert.equal((await generate({ prompt: say.NAME, providerOptions })).text, say.NICE);
        assert.equal((await stream({ prompt: say.ASK, providerOptions })).text, say.KNOWN);
      },
      "conversation, tool loop": async () => {
        const providerOptions = { llmapi: { conversation_id: await say.conversation() } };
        assert.equal((await generate({ prompt: say.WEATHER, tools, providerOptions })).text, say.SUNNY);
        assert.equal((await stream({ prompt: say.THANKS, tools, providerOptions })).text, say.WELCOME);
      },
    }),
  },
  {
    "a wrong token": () => complete(say.NAME, { apiKey: say.WRONG_TOKEN }),
    "an unknown model": () => complete(say.NAME, {}, say.UNKNOWN_MODEL),
    "a prompt too long": () => complete(say.TOO_LONG),
    "the provider's limit": () => complete(say.BUSY),
  },
  // All are APICallErrors; which it is, the status and OpenAI's code tell.
  (error) => `${error.statusCode} ${error.data?.error.code}`,
);
