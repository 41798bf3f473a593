// The app behind the proxy in the end-to-end tests, in plain Node: the same answers as app.py.
//     COLOR=blue PORT=8001 node tests/apps/app.js
'use strict';
const crypto = require('node:crypto');
const http = require('node:http');

const color = process.env.COLOR || 'none';
const revision = process.env.REVISION || '';
let healthStatus = 200;

function describe(request, path, digest, length) {
  const header = (name) => request.headers[name] || '';
  return {
    color,
    revision,
    pid: process.pid,
    method: request.method,
    path,
    length,
    sha256: digest,
    host: header('host'),
    forwarded_for: header('x-forwarded-for'),
    forwarded_proto: header('x-forwarded-proto'),
    request_id: header('x-request-id'),
  };
}

function reply(response, status, said) {
  const payload = Buffer.from(JSON.stringify(said));
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': payload.length,
    'x-app-color': color,
  });
  response.end(payload);
}

function stream(response, kib) {
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'x-app-color': color });
  const block = Buffer.alloc(1024, color[0]);
  let left = kib;
  const push = () => {
    while (left > 0) {
      left -= 1;
      if (!response.write(block)) {
        response.once('drain', push);
        return;
      }
    }
    response.end();
  };
  push();
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://app');
  const digest = crypto.createHash('sha256');
  let length = 0;
  let kept = '';
  request.on('data', (chunk) => {
    digest.update(chunk);
    length += chunk.length;
    if (kept.length < 64) kept += chunk.toString('latin1').slice(0, 64);
  });
  request.on('end', () => {
    const path = url.pathname;
    if (path === '/admin/health' && request.method === 'POST') healthStatus = Number(kept || 200);
    if (path === '/healthz') {
      reply(response, healthStatus, { status: healthStatus < 300 ? 'ok' : 'failing', color });
    } else if (path.endsWith('/stream')) {
      stream(response, Number(url.searchParams.get('kb') || 64));
    } else {
      const said = describe(request, path, digest.digest('hex'), length);
      const ms = path.endsWith('/slow') ? Number(url.searchParams.get('ms') || 100) : 0;
      if (ms > 0) setTimeout(() => reply(response, 200, said), ms);
      else reply(response, 200, said);
    }
  });
});
server.listen(Number(process.env.PORT), '127.0.0.1');
