'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, afterEach, beforeEach, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { Link } = require('../../exporter/node/lib/link.js');

const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

let folder;
let server;
let link;
let connections;

beforeEach(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'oomguard-'));
  connections = [];
  await listen();
});

afterEach(() => {
  if (link) link.stop();
  server.close();
  for (const connection of connections) connection.socket.destroy();
  fs.rmSync(folder, { recursive: true });
});

function listen() {
  server = net.createServer((socket) => {
    const connection = { socket, text: '', ended: false };
    socket.on('data', (data) => { connection.text += data; });
    socket.on('close', () => { connection.ended = true; });
    socket.on('error', () => {});
    connections.push(connection);
  });
  return new Promise((resolve) => server.listen(path.join(folder, 'sidecar.sock'), resolve));
}

function start(answer = async ({ ask }) => ({ [ask]: 'answered' })) {
  link = new Link(folder, () => ({ hello: 1 }), answer);
}

async function until(condition) {
  for (let turn = 0; turn < 4000 && !condition(); turn++) await sleep(5);
  assert.ok(condition(), String(condition));
}

async function greeted(number = 0) {
  await until(() => connections[number] && connections[number].text.includes('\n'));
  return connections[number];
}

test('it says hello and answers in order, questions sent ahead and in pieces too', async () => {
  start(async ({ id }) => { await sleep(id === 1 ? 30 : 0); return { reading: id }; });
  const { socket } = await greeted();
  socket.write('{"id": 1, "ask": "reading"}\n{"id": 2, "ask": "rea');
  await sleep(10);
  socket.write('ding"}\n');
  await until(() => connections[0].text.split('\n').length === 4);
  assert.deepStrictEqual(connections[0].text.trim().split('\n').map(JSON.parse),
    [{ hello: 1 }, { id: 1, reading: 1 }, { id: 2, reading: 2 }]);
});

test('garbage, a line without an end and an array end the connection, and it comes again', async () => {
  start();
  for (const [number, bytes] of ['garbage\n', 'x'.repeat(70000), `${'y'.repeat(70000)}\n`, '[1]\n'].entries()) {
    const { socket } = await greeted(number);
    socket.write(bytes);
    await until(() => connections[number].ended);
  }
  await greeted(4);
});

test('a sidecar that refuses its version is left alone', async () => {
  start();
  const { socket } = await greeted();
  socket.write('{"error": "this sidecar speaks version 9"}\n');
  await until(() => link.state === 'refused');
  await sleep(300);
  assert.strictEqual(connections.length, 1);
  assert.strictEqual(link.reason, 'this sidecar speaks version 9');
});

test('it waits longer each time nobody answers, and finds a sidecar that comes later', async () => {
  server.close();
  start();
  await until(() => link.backOff >= 0.4);
  assert.match(link.reason, /ENOENT|ECONNREFUSED/);
  await listen();
  await greeted();
  assert.strictEqual(link.state, 'connected');
});

test('a sidecar that takes no answer loses the connection', async () => {
  start(async () => ({ reading: { text: 'x'.repeat(60000) } }));
  const { socket } = await greeted();
  socket.pause();
  socket.removeAllListeners('data');
  for (let id = 0; id < 50; id++) socket.write(`{"id": ${id}, "ask": "reading"}\n`);
  await until(() => link.reason === 'the sidecar takes no answer');
});

test('the socket of another user is not spoken to', { skip: process.getuid() !== 0 && 'only root can give files away' }, async () => {
  fs.chownSync(path.join(folder, 'sidecar.sock'), 4711, 4711);
  start();
  await until(() => link.reason.includes('belongs to uid 4711'));
  assert.strictEqual(connections.length, 0);
  fs.chownSync(folder, 4711, 4711); // whoever owns the directory that the environment named is trusted
  await greeted();
});

test('a stopped link connects no more', async () => {
  start();
  await greeted();
  link.stop();
  await until(() => connections[0].ended);
  await sleep(200);
  assert.strictEqual(connections.length, 1);
});
