// What a client written in TypeScript does with the generated types; `tsc --strict` checks it.
import type { components, operations, paths } from "./schema";

type Schemas = components["schemas"];

const asked: Schemas["CompletionInRequest"] = {
  model: "gpt-4o-mini",
  messages: [
    { role: "user", content: "Hi" },
    { role: "user", content: [{ type: "text", text: "Hi" }] },
  ],
  tools: [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }],
  stop: ["x"],
};
type Body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"];
export const body: Body = asked;

export function replyOf(completion: Schemas["CompletionOut"]): string {
  const { message, finish_reason } = completion.choices[0]!;
  const cached: number = completion.usage.prompt_tokens_details?.cached_tokens ?? 0;
  const called: string[] = (message.tool_calls ?? []).map((call) => call.function?.arguments ?? "");
  return [message.refusal ?? completion.reply, finish_reason, cached, ...called].join();
}

type Streamed = operations["v1_chat_completions_create"]["responses"][200]["content"]["text/event-stream"];

export function textOf(event: Streamed): string {
  if ("error" in event) throw new Error(event.error.code);
  return event.choices.map((choice) => choice.delta.content ?? choice.delta.refusal ?? "").join("");
}

export function idsOf(models: Schemas["ModelListOut"], items: Schemas["ItemListOut"]): string[] {
  return [...models.data.map((model) => model.id), ...items.data.map((item) => item.content[0]?.text ?? item.id)];
}

export function costOf(usage: Schemas["OwnUsageOut"]): number {
  return usage.data.reduce((sum, row) => sum + (row.cost_usd ?? 0), 0);
}

type Refused = components["responses"]["Error429"];

export function waitOf(refused: Refused): [string | undefined, string] {
  return [refused.headers["Retry-After"], refused.content["application/json"].error.message];
}
