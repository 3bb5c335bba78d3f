'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, test } = require('node:test');
const { look } = require('../../exporter/node/lib/level.js');

const folders = [];
after(() => folders.forEach((folder) => fs.rmSync(folder, { recursive: true })));

/** Roots of a /proc and a /sys/fs/cgroup with these files. */
function tree(membership, files) {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'oomguard-'));
  folders.push(root);
  const all = { 'proc/self/cgroup': membership };
  for (const [name, content] of Object.entries(files)) all[`cgroup/${name}`] = content;
  for (const [name, content] of Object.entries(all)) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), content);
  }
  return { proc: path.join(root, 'proc'), cgroups: path.join(root, 'cgroup') };
}

test('in a cgroup of version 2 the cache that can be reclaimed is not used', () => {
  const roots = tree('0::/pod/app\n', {
    'pod/app/memory.max': '1000\n', 'pod/app/memory.current': '900\n',
    'pod/app/memory.stat': 'anon 500\nactive_file 100\ninactive_file 200\nslab_reclaimable 50\n',
  });
  const { used, limit, origin, rss } = look(null, roots);
  assert.deepStrictEqual([used, limit, origin], [550, 1000, 'cgroup']);
  assert.ok(rss > 1e7);
});

test('the nearest cgroup that has a limit counts', () => {
  const roots = tree('0::/pod/app\n', {
    'pod/app/memory.max': 'max\n', 'pod/memory.max': '2000\n', 'pod/memory.current': '70\n', 'pod/memory.stat': 'anon 70\n',
  });
  assert.deepStrictEqual([look(null, roots).used, look(null, roots).limit], [70, 2000]);
});

test('a container that sees its own cgroup as the root is at home there', () => {
  const roots = tree('0::/../../host/path\n', { 'memory.max': '500\n', 'memory.current': '400\n', 'memory.stat': '' });
  assert.strictEqual(look(null, roots).used, 400);
});

test('version 1 is read too, beside a version 2 without memory', () => {
  const roots = tree('5:cpu,memory:/box\n0::/\n', {
    'memory/box/memory.limit_in_bytes': '1000\n', 'memory/box/memory.usage_in_bytes': '900\n',
    'memory/box/memory.stat': 'cache 1\ntotal_active_file 100\ntotal_inactive_file 200\n',
  });
  assert.strictEqual(look(null, roots).used, 600);
});

test('without a limit it is the process, under the limit that was configured', () => {
  for (const roots of [tree('0::/\n', {}), { proc: '/nowhere', cgroups: '/nowhere' },
    tree('5:memory:/box\n', { 'memory/box/memory.limit_in_bytes': '9223372036854771712\n' })]) {
    const { used, rss, limit, origin } = look(12345, roots);
    assert.deepStrictEqual([used, limit, origin], [rss, 12345, 'process']);
  }
});

test('of two limits the lower one counts', () => {
  const roots = tree('0::/\n', { 'memory.max': '1000\n', 'memory.current': '400\n', 'memory.stat': '' });
  assert.deepStrictEqual([look(800, roots).limit, look(2000, roots).limit], [800, 1000]);
});
