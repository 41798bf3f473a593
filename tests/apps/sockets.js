// Both ends of the end-to-end WebSocket test, on the `ws` package: what sockets.py does on `websockets`.
//
//     COLOR=blue PORT=8001 node sockets.js             an app: every message comes back with the color in front
//     node sockets.js count ADDRESS CLIENTS SECONDS    clients that count: one line of JSON for each, at its end
"use strict";

const { createServer } = require("node:http");
const { randomBytes } = require("node:crypto");
const { once } = require("node:events");
const { WebSocket, WebSocketServer } = require("ws");

const LARGE = 16 * 1024 * 1024;
const color = process.env.COLOR || "none";

function app() {
  const server = createServer((_, response) => response.end(color));
  const sockets = new WebSocketServer({ server, maxPayload: 2 * LARGE, perMessageDeflate: true });
  sockets.on("connection", (socket) => {
    socket.on("message", (data, isBinary) => socket.send(isBinary ? data : `${color} ${data}`));
    socket.on("error", () => {});
  });
  server.listen(Number(process.env.PORT), "127.0.0.1");
}

/** Numbered messages until the time is over or the other side ends it; the first client also sends a large one. */
async function count(address, number, seconds) {
  const said = { messages: 0, wrong: 0, code: null, colors: [], at: null };
  const begun = performance.now();
  const socket = new WebSocket(`ws://${address}/`, { maxPayload: 2 * LARGE, perMessageDeflate: number % 2 === 0 });
  const closed = once(socket, "close");
  let take = () => {};
  socket.on("message", (data) => take(data));
  socket.on("error", () => {});
  const answer = () => Promise.race([new Promise((resolve) => { take = resolve; }), closed.then(() => null)]);
  await once(socket, "open");
  console.log(JSON.stringify({ open: number }));
  while (socket.readyState === WebSocket.OPEN && performance.now() - begun < seconds * 1000) {
    const text = `${number}/${said.messages} ${"x".repeat(200)}`;
    const answered = answer();
    if (said.messages % 3 === 0) {
      // In pieces: frames of one message.
      socket.send(text.slice(0, 5), { fin: false });
      socket.send(text.slice(5, 50), { fin: false });
      socket.send(text.slice(50), { fin: true });
    } else {
      socket.send(text);
    }
    const got = await answered;
    if (got === null) break;
    const at = String(got).indexOf(" ");
    const from = String(got).slice(0, at);
    said.wrong += String(got).slice(at + 1) === text ? 0 : 1;
    said.messages += 1;
    if (!said.colors.includes(from)) said.colors.push(from);
    if (number === 0 && said.messages === 5) {
      const large = Buffer.concat(Array(LARGE / 1024).fill(randomBytes(1024)));
      const echoed = answer();
      socket.send(large);
      const back = await echoed;
      if (back === null) break;
      said.wrong += Buffer.compare(large, back) === 0 ? 0 : 1;
    }
    if (said.messages % 10 === 0) {
      const pong = Promise.race([once(socket, "pong"), closed]);
      socket.ping();
      await pong;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  // Nothing happens to one that the other side has closed.
  socket.close(1000);
  const [code] = await closed;
  return { ...said, code, at: (performance.now() - begun) / 1000 };
}

async function clients(address, number, seconds) {
  const all = Array.from({ length: number }, (_, at) => count(address, at, seconds));
  for (const said of await Promise.all(all)) console.log(JSON.stringify(said));
}

if (process.argv.length > 2) clients(process.argv[3], Number(process.argv[4]), Number(process.argv[5]));
else app();
