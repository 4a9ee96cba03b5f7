// What the scripts of JavaScript clients share: they print {"scenario": "works" or what went wrong} as their last line.
export const { BASE_URL, TOKEN, MODEL } = process.env;

export const NAME = "My name is Ann.";
export const NICE = "Nice to meet you, Ann.";
export const ASK = "What is my name?";
export const KNOWN = "Your name is Ann.";
export const WEATHER = "What is the weather in Oslo and Rome?";
export const SUNNY = "It is sunny in Oslo and sunny in Rome.";
export const THANKS = "Thank you!";
export const WELCOME = "You are welcome.";
export const WARMEST = "Which of them is warmest?";

// Create a conversation of llmapi, for clients that have no call for it.
export async function conversation() {
  const headers = { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" };
  const answer = await fetch(`${BASE_URL}/conversations`, { method: "POST", headers, body: "{}" });
  return (await answer.json()).id;
}

export async function report(scenarios) {
  const outcomes = {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      await scenario();
      outcomes[name] = "works";
    } catch (error) {
      outcomes[name] = `${error.name}: ${error.message}`;
    }
  }
  console.log(JSON.stringify(outcomes));
}
