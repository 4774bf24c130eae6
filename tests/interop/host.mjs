// An MCP host on the TypeScript SDK: takes one command a line on stdin and says what came of it on stdout, both as
// JSON. It runs in the directory that has node_modules, and leaves when stdin ends.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.cwd()}/`);
const { Client } = require("@modelcontextprotocol/client");
const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");

const say = (line) => console.log(JSON.stringify(line));
const aborts = new Map();
let client;

const commands = {
  // `answer` is what the person at this host says to every question; without one, nobody can be asked.
  async connect({ server, negotiation, answer }) {
    const person = answer !== undefined;
    client = new Client(
      { name: "interop", version: "1.0.0" },
      { versionNegotiation: negotiation, capabilities: person ? { elicitation: { form: {} } } : {} },
    );
    if (person) {
      client.setRequestHandler("elicitation/create", ({ params }) => {
        say({ elicited: params });
        const [field] = Object.keys(params.requestedSchema.properties);
        return { action: "accept", content: { [field]: answer } };
      });
    }
    const transport = new StdioClientTransport(server);
    await client.connect(transport);
    return { era: client.getProtocolEra(), pid: transport.pid };
  },
  // Whatever is only one request: listTools, readResource, getPrompt, ...
  request({ method, params }) {
    return client[method](params);
  },
  call({ call, options, number }) {
    const abort = new AbortController();
    aborts.set(number, abort);
    return client.callTool(call, { signal: abort.signal, ...options });
  },
  // Gives up after some milliseconds in the platform's way instead of the SDK's.
  call_until({ call, milliseconds }) {
    return client.callTool(call, { signal: AbortSignal.timeout(milliseconds) });
  },
  abort({ aborted, reason }) {
    aborts.get(aborted).abort(reason);
  },
};

async function carryOut({ command, number, ...fields }) {
  try {
    say({ number, result: (await commands[command]({ ...fields, number })) ?? null });
  } catch (error) {
    say({ number, error: String(error) });
  }
}

for await (const line of createInterface({ input: process.stdin })) carryOut(JSON.parse(line));
await client?.close();
