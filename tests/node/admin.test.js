'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, test } = require('node:test');
const { Guard } = require('../../exporter/node/lib/guard.js');
const { parse } = require('../../exporter/node/lib/admin/order.js');
const { Runs } = require('../../exporter/node/lib/admin/run.js');

const TOKEN = 'secret';
const alive = setInterval(() => {}, 1000);
const servers = [];
after(() => {
  clearInterval(alive);
  for (const server of servers) { server.close(); server.closeAllConnections(); }
});

async function serve(environ = { OOMGUARD_TOKEN: TOKEN }, front = (request, next) => next()) {
  const guard = new Guard(environ);
  const middleware = guard.middleware();
  const server = http.createServer((request, response) => {
    front(request, () => middleware(request, response, () => response.end('the application')));
  });
  servers.push(server);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${server.address().port}`;
  const ask = async (where, { body, token = TOKEN, ...rest } = {}) => {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(base + where, { body, headers, method: body === undefined ? 'GET' : 'POST', ...rest });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, json: () => JSON.parse(text) };
  };
  return { guard, ask };
}

test('a cleanup takes the steps and tells what each gave', async () => {
  const { guard, ask } = await serve();
  let size = 5000;
  guard.cache('bulk', { clear: () => { size = 0; }, size: () => size });
  const answer = await ask('/admin/cleanup', { body: '{"steps": ["caches", "gc", "trim"]}' });
  assert.strictEqual(answer.status, 200);
  const { outcome, steps, run, rss_before, pid } = answer.json();
  assert.deepStrictEqual([outcome, run, pid], ['done', 1, process.pid]);
  assert.ok(rss_before > 1e7);
  assert.deepStrictEqual(steps.map(({ step, status }) => [step, status]), [['caches', 'done'], ['gc', 'done'], ['trim', 'unsupported']]);
  assert.deepStrictEqual(steps[0].details, { cleared: ['bulk'], bytes: 5000 });
  assert.ok(steps[1].stall > 0);
  assert.strictEqual(size, 0);
});

test('memory is told with a reading', async () => {
  const { ask } = await serve();
  const told = (await ask('/admin/memory')).json();
  assert.ok(told.rss > 1e7 && told.used > 0 && told.heap.used > 1e6);
  assert.deepStrictEqual([told.run, told.reading_age, told.caches], [null, 0, []]);
});

test('the token is needed, and is the one of the environment or of the file', async () => {
  const { ask } = await serve();
  assert.strictEqual((await ask('/admin/memory', { token: '' })).status, 401);
  assert.strictEqual((await ask('/admin/memory', { token: 'other' })).status, 403);
  assert.strictEqual((await (await serve({})).ask('/admin/memory')).status, 403, 'no token at all opens nothing');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'oomguard-'));
  fs.writeFileSync(path.join(folder, 'token'), 'of the file\n');
  const file = await serve({ OOMGUARD_RUNTIME_DIR: folder });
  assert.strictEqual((await file.ask('/admin/memory', { token: 'of the file' })).status, 200);
  fs.rmSync(path.join(folder, 'token'));
  fs.symlinkSync('/etc/hostname', path.join(folder, 'token'));
  const link = fs.readFileSync('/etc/hostname', 'utf8').trim();
  assert.strictEqual((await file.ask('/admin/memory', { token: link })).status, 403, 'a link is not followed');
  fs.rmSync(folder, { recursive: true });
});

test('other paths are the application\'s, other methods and bodies are refused', async () => {
  const { ask } = await serve();
  assert.strictEqual((await ask('/')).text, 'the application');
  assert.strictEqual((await ask('/admin')).text, 'the application');
  assert.strictEqual((await ask('/admin/cleanup')).status, 405);
  for (const [status, body] of [
    [400, '{'], [400, '[]'], [400, '3'], [400, '{"steps": "gc"}'], [422, '{"steps": ["dance"]}'], [422, '{"goal": "5 apples"}'],
    [400, '{"goal": [1]}'], [400, '{"version": "3"}'], [400, '{"version": "4", "alerts": [3]}'],
    [400, '['.repeat(500) + ']'.repeat(500)], [422, '{"version": "4", "alerts": [{"labels": {"action": "dance"}}]}'],
    [413, ' '.repeat(2 ** 20 + 1)],
  ]) assert.strictEqual((await ask('/admin/cleanup', { body })).status, status, body.slice(0, 60));
});

test('a body that a middleware has parsed before is taken as it is', async () => {
  const { ask } = await serve({ OOMGUARD_TOKEN: TOKEN }, async (request, next) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    if (chunks.length) request.body = JSON.parse(Buffer.concat(chunks));
    next();
  });
  assert.deepStrictEqual((await ask('/admin/cleanup', { body: '{"steps": ["trim"]}' })).json().steps.map(({ step }) => step), ['trim']);
});

test('alerts are followed as the sidecar does', () => {
  const body = JSON.stringify({ version: '4', alerts: [
    { labels: { steps: 'caches,gc', goal: '60%' } }, { labels: { steps: 'trim', action: 'cleanup', target: 'me' } },
    { status: 'resolved', labels: {} }, { labels: { action: 'restart' } }, { labels: { target: 'other' } }, { labels: { action: 'notify' } },
  ] });
  const { steps, goals, declined } = parse(body, 'me');
  assert.deepStrictEqual([...steps], ['caches', 'gc', 'trim']);
  assert.deepStrictEqual(goals, [{ ratio: 0.6 }, 'default']);
  assert.deepStrictEqual(declined, { resolved: 1, not_allowed: 1, other_target: 1, notify: 1 });
  assert.deepStrictEqual([...parse('', '').steps], ['caches', 'gc', 'trim']);
});

test('a run ends at its goal, takes the steps in the order of the ladder, and others join it', async () => {
  const level = { rss: 100, used: 100, limit: 100, origin: 'cgroup' };
  const taken = [];
  let joined;
  const runs = new Runs(async (step) => {
    taken.push(step);
    if (step === 'caches') joined = await runs.order({ steps: new Set(['streams', 'gc']), goals: [{ ratio: 0.3 }], declined: null }, true);
    level.used -= 25;
    return { step, status: 'done', stall: 0 };
  }, () => ({ ...level }), () => ({ ratio: 0.7 }));
  const order = { steps: new Set(['gc', 'caches']), goals: ['default'], declined: null };
  const answer = await runs.order(order, true);
  assert.deepStrictEqual(taken, ['caches', 'gc', 'streams']);
  assert.deepStrictEqual([joined.outcome, joined.run], ['joined', 1]);
  assert.deepStrictEqual([answer.outcome, answer.goal, answer.used_before, answer.used_after], ['goal_reached', 30, 100, 25]);
  assert.strictEqual((await runs.order({ ...order, goals: ['default'] }, true)).outcome, 'not_needed');
  assert.strictEqual((await runs.order({ ...order, declined: {} }, false)).outcome, 'off');
  assert.strictEqual((await runs.order({ ...order, steps: new Set(), declined: {} }, true)).outcome, 'nothing_asked');
  level.used = 100;
  assert.strictEqual((await runs.order({ steps: new Set(['gc']), goals: ['default'], declined: null }, true)).outcome, 'goal_not_reached');
});

test('OOMGUARD_HOOK=0 mounts nothing', async () => {
  const { ask } = await serve({ OOMGUARD_TOKEN: TOKEN, OOMGUARD_HOOK: '0' });
  assert.strictEqual((await ask('/admin/memory')).text, 'the application');
});
