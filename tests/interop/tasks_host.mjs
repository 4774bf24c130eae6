// An MCP host on the TypeScript SDK and its tasks extension, over HTTP: takes one command a line on stdin and says
// what came of it on stdout, both as JSON. It runs in the directory that has node_modules, and leaves when stdin ends.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const load = (file) => import(pathToFileURL(`${process.cwd()}/node_modules/@modelcontextprotocol/${file}`));
const { Client, StreamableHTTPClientTransport } = await load("client/dist/index.mjs");
const { createTaskSessionFromClient } = await load("ext-tasks/dist/client/index.js");

const VERSION = "2026-07-28";
const info = { name: "interop", version: "1.0.0" };
const say = (line) => console.log(JSON.stringify(line));
const executions = new Map();
let client, session;

// The SDK's client does not let requests of extensions through, so the host sends them itself.
const dispatcher = (url, token) => {
  let count = 0;
  return async ({ method, params }, { signal } = {}) => {
    const response = await fetch(url, {
      method: "POST",
      signal,
      headers: {
        "Content-Type": "application/json",
        Accept: "application/json, text/event-stream",
        Authorization: `Bearer ${token}`,
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": method,
        "Mcp-Name": params.taskId ?? params.name,
      },
      body: JSON.stringify({ jsonrpc: "2.0", id: `task-${++count}`, method, params }),
    });
    const text = await response.text();
    const sent = response.headers.get("content-type").startsWith("text/event-stream")
      ? text.match(/^data: (.*)$/gm).at(-1).slice("data: ".length)
      : text;
    const { result, error } = JSON.parse(sent);
    return error === undefined ? { kind: "result", result } : { kind: "error", error };
  };
};

const commands = {
  // `answer` is what the person at this host says to every question.
  async connect({ url, token, answer }) {
    const capabilities = { elicitation: { form: {} } };
    client = new Client(info, { versionNegotiation: { mode: "auto" }, capabilities });
    const headers = { Authorization: `Bearer ${token}` };
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
    session = createTaskSessionFromClient(client, {
      endpointId: "interop",
      rawDispatch: dispatcher(url, token),
      v2RequestFraming: { protocolVersion: VERSION, clientInfo: info, clientCapabilities: capabilities },
      async onInputRequest({ kind, params }) {
        say({ elicited: params });
        return { action: "accept", content: { answer } };
      },
    });
    return { era: client.getProtocolEra(), capabilities: session.capabilities };
  },
  async call({ call, number }) {
    const execution = await session.callTool(call.name, call.arguments);
    executions.set(number, execution);
    say({ began: execution.kind });
    const { outcome } = await execution.settle();
    return { status: outcome.status, result: outcome.result };
  },
  cancel({ called }) {
    return executions.get(called).cancel();
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
await session?.close();
await client?.close();
