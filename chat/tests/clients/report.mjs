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
export const LOOK = "What do you see?";
export const SEEN = "A picture and a document.";
export const PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
export const DOCUMENT = "JVBERi0xLjQKJSVFT0YK";
export const TOO_LONG = "This is too long.";
export const BUSY = "Is your provider busy?";
export const WRONG_TOKEN = "wrong";
export const UNKNOWN_MODEL = "unknown";

// Create a conversation of llmapi, for clients that have no call for it.
export async function conversation() {
  const headers = { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" };
  const answer = await fetch(`${BASE_URL}/conversations`, { method: "POST", headers, body: "{}" });
  return (await answer.json()).id;
}

async function errorOf(scenario) {
  try {
    await scenario();
  } catch (error) {
    return error;
  }
}

// Run them all. Of a failure, which is to happen, the name of the error is what counts.
export async function report(scenarios, failures, named = (error) => error.constructor.name) {
  const outcomes = {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    const error = await errorOf(scenario);
    outcomes[name] = error ? `${error.constructor.name}: ${error.message}` : "works";
  }
  for (const [name, failure] of Object.entries(failures)) {
    const error = await errorOf(failure);
    outcomes[name] = error ? named(error) : "no error";
  }
  console.log(JSON.stringify(outcomes));
}
