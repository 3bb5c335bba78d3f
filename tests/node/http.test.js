'use strict';
const assert = require('node:assert');
const http = require('node:http');
const { after, afterEach, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { Http } = require('../../exporter/node/lib/http.js');
const { Requests } = require('../../exporter/node/lib/requests.js');
const { Shedding } = require('../../exporter/node/lib/shedding.js');
const { Streams } = require('../../exporter/node/lib/streams.js');

const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));
const cleanups = [];
afterEach(() => cleanups.splice(0).forEach((cleanup) => cleanup()));
const problems = [];
process.on('uncaughtException', (error) => problems.push(error));
after(() => assert.deepStrictEqual(problems, []));

/** A server with the hook's noticing; `memory` is what the level says. */
async function serve(handler, { environ = {}, memory = { used: 0, limit: 100 } } = {}) {
  const streams = new Streams(environ, () => {});
  const requests = new Requests();
  const shedding = new Shedding(() => memory, () => noticing.refuseFirst());
  const noticing = new Http(requests, streams, shedding);
  const server = http.createServer(handler);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => { noticing.stop(); server.close(); server.closeAllConnections(); });
  const { port } = server.address();
  return { streams, requests, shedding, port, noticing };
}

/** A whole response, or with `open` one whose body is still to come. */
function get(port, path = '/', { open = false, method = 'GET', agent } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request({ port, path, method, agent, host: '127.0.0.1' }, (response) => {
      const told = { status: response.statusCode, headers: response.headers, text: '', ended: false, aborted: false, request };
      response.on('data', (data) => { told.text += data; });
      response.on('end', () => { told.ended = true; if (!open) resolve(told); });
      response.on('error', () => { told.aborted = true; });
      if (open) resolve(told);
    });
    request.on('error', reject);
    request.end();
  });
}

async function until(condition) {
  for (let turn = 0; turn < 4000 && !condition(); turn++) await sleep(5);
  assert.ok(condition(), String(condition));
}

const EVENTS = { 'Content-Type': 'text/event-stream; charset=utf-8' };

/** The ways in which handlers begin a stream. */
const WAYS = {
  'writeHead with an object': (response) => response.writeHead(200, EVENTS).write('data: 1\n\n'),
  'writeHead with a text and an object': (response) => response.writeHead(200, 'Fine', { 'content-type': 'text/event-stream' }).flushHeaders(),
  'writeHead with a list': (response) => response.writeHead(200, ['Content-Type', 'text/event-stream', 'X', 'y']).write('data: 1\n\n'),
  'setHeader and write': (response) => { response.setHeader('Content-Type', 'text/event-stream'); response.write('data: 1\n\n'); },
  'setHeader and flushHeaders': (response) => { response.setHeader('content-type', 'Text/Event-Stream'); response.flushHeaders(); },
};

for (const [way, begin] of Object.entries(WAYS)) {
  test(`a stream is noticed that is begun by ${way}, and closed cleanly by the step`, async () => {
    const handlers = [];
    const { streams, requests, port } = await serve((request, response) => {
      begin(response);
      handlers.push(response);
    });
    const client = await get(port, '/', { open: true });
    assert.strictEqual(client.status, 200);
    await until(() => streams.open.size === 1);
    assert.deepStrictEqual([requests.inFlight, requests.total], [0, 0], 'a stream is no request in flight');
    const answer = streams.take(null);
    assert.deepStrictEqual([answer.status, answer.details.closed], ['done', 1]);
    await until(() => client.ended);
    assert.strictEqual(client.aborted, false);
    handlers[0].write('data: late\n\n');
    handlers[0].end('later still');
    assert.deepStrictEqual(streams.reading().closed, { client: 0, server: 0, evicted: 1, error: 0 });
  });

  test(`one too many is refused with 503, begun by ${way}`, async () => {
    let closed = 0;
    const { streams, port } = await serve((request, response) => {
      response.on('close', () => { closed++; });
      begin(response);
      response.write('data: more\n\n');
      setTimeout(() => { response.write('data: late\n\n'); if (streams.rejected) response.end(); }, 20);
    }, { environ: { MAX_SSE_CONNECTIONS: '1' } });
    await get(port, '/', { open: true });
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let turn = 0; turn < 2; turn++) { // on one connection: what the handler writes must not be taken for the next response
      const { status, headers, text } = await get(port, '/', { agent });
      assert.deepStrictEqual([status, headers['retry-after'], text], [503, '30', '']);
      assert.strictEqual(headers['content-type'], undefined);
    }
    agent.destroy();
    await until(() => closed >= 2);
    assert.deepStrictEqual([streams.rejected, streams.opened], [2, 1]);
  });
}

test('why a stream was closed is told: its server, its client, its handler', async () => {
  const { streams, port } = await serve((request, response) => {
    response.writeHead(200, EVENTS).write('data: 1\n\n');
    if (request.url === '/server') setTimeout(() => response.end(), 10);
    if (request.url === '/error') setTimeout(() => response.destroy(new Error('mine')), 10);
    response.on('error', () => {});
  });
  const client = await get(port, '/client', { open: true });
  client.request.destroy();
  await get(port, '/server');
  await get(port, '/error', { open: true });
  await until(() => streams.open.size === 0);
  assert.deepStrictEqual(streams.reading().closed, { client: 1, server: 1, evicted: 0, error: 1 });
  assert.strictEqual(streams.reading().duration.counts[0], 3);
});

test('those that are idle are closed, and a quarter of all at least', async () => {
  const { streams } = await serve(() => {});
  const ended = [];
  const open = ['a', 'b', 'c'].map((name) => streams.stream(name, { evict: () => ended.push(name) }));
  open[1].active -= 10;
  streams.take(null);
  assert.deepStrictEqual(ended, ['b']);
  streams.take(null);
  assert.deepStrictEqual(ended, ['b', 'a'], 'one of two is more than a quarter');
  const kept = streams.stream('d');
  streams.take('d');
  assert.strictEqual(streams.open.size, 2, 'one that can not be evicted stays');
  kept.close();
  kept.close('client');
  assert.deepStrictEqual(streams.reading().closed, { client: 0, server: 1, evicted: 2, error: 0 });
});

test('an evict that throws leaves the stream open, and is told', async () => {
  const { streams } = await serve(() => {});
  streams.stream('a', { evict: () => { throw new Error('no'); } });
  const answer = streams.take(null);
  assert.deepStrictEqual([answer.status, answer.details.failed, streams.open.size], ['failed', ['Error: no'], 1]);
});

test('requests are counted until they are answered or their client goes', async () => {
  const held = [];
  const { requests, port } = await serve((request, response) => {
    if (request.url === '/held') held.push(response);
    else response.end('done');
  });
  await get(port);
  const leaving = http.get({ port, path: '/held', host: '127.0.0.1' });
  leaving.on('error', () => {});
  await until(() => held.length === 1);
  assert.deepStrictEqual([requests.inFlight, requests.total], [1, 1]);
  leaving.destroy();
  await until(() => requests.inFlight === 0);
  assert.strictEqual(requests.total, 2);
});

test('an ordinary response, and a HEAD of a stream, are no streams and stay as they were', async () => {
  const { streams, port } = await serve((request, response) => {
    if (request.url === '/head') response.writeHead(200, EVENTS).end();
    else response.writeHead(201, 'Made', { 'Content-Type': 'text/plain', 'X-Test': 'y' }).end('text');
  });
  const plain = await get(port);
  assert.deepStrictEqual([plain.status, plain.text, plain.headers['x-test']], [201, 'text', 'y']);
  await get(port, '/head', { method: 'HEAD' });
  assert.strictEqual(streams.opened, 0);
});

test('no listener of the application is one too many because of the hook', async () => {
  const warnings = [];
  const note = (warning) => warnings.push(warning.name);
  process.on('warning', note);
  const { port } = await serve((request, response) => {
    for (let index = 0; index < 10; index++) response.on('close', () => {});
    response.end();
  });
  await get(port);
  await sleep(20);
  process.off('warning', note);
  assert.deepStrictEqual(warnings, []);
});

test('while shedding, requests get 503 before the handler runs, health and admin excepted', async () => {
  let handled = 0;
  const { shedding, port } = await serve((request, response) => { handled++; response.end('yes'); });
  shedding.take(null);
  const refused = await get(port, '/work?path=/health');
  assert.deepStrictEqual([refused.status, refused.headers['retry-after'], handled], [503, '30', 0]);
  for (const path of ['/health', '/api/healthz', '/readyz', '/admin/cleanup', '/metrics', '/health?full']) {
    assert.strictEqual((await get(port, path)).status, 200, path);
  }
  assert.deepStrictEqual(shedding.reading(), { on: true, refused: 1 });
  shedding.take('off');
  assert.strictEqual((await get(port, '/work')).status, 200);
});

test('shedding by the level begins above it, and ends when memory has fallen below', async () => {
  const memory = { used: 95, limit: 100 };
  const { shedding, port } = await serve((request, response) => response.end(), { memory });
  shedding.above('90%');
  assert.strictEqual((await get(port)).status, 503);
  memory.used = 88;
  await sleep(110);
  assert.strictEqual((await get(port)).status, 503, 'not yet: it would swing');
  memory.used = 80;
  await sleep(110);
  assert.strictEqual((await get(port)).status, 200);
  assert.throws(() => shedding.above('much'), RangeError);
});

test('an order to shed ends by itself', async () => {
  const { shedding, port } = await serve((request, response) => response.end());
  shedding.take(null);
  shedding.until -= 31;
  assert.strictEqual((await get(port)).status, 200);
});

test('when it is stopped, http is as it was', async () => {
  const { writeHead } = http.ServerResponse.prototype;
  const { noticing, shedding, port } = await serve((request, response) => response.end());
  await get(port);
  shedding.take(null);
  assert.notStrictEqual(http.ServerResponse.prototype.writeHead, writeHead);
  assert.ok(Object.hasOwn(http.Server.prototype, 'emit'));
  noticing.stop();
  assert.strictEqual(http.ServerResponse.prototype.writeHead, writeHead);
  assert.ok(!Object.hasOwn(http.Server.prototype, 'emit'));
});
