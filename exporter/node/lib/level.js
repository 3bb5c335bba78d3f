'use strict';
// How much memory is used here, and of how much: of this process's cgroup, else of the process alone.
//
// Used is what the kernel would kill for. In a cgroup that is its usage less the file cache that can be reclaimed
// (cgroup-v2.rst, "memory.stat"; v1: memory.txt, 5.2); without a limit there it is this process's resident memory.

const fs = require('fs');
const path = require('path');

/** Bytes. cgroup v1 says "no limit" with the largest multiple of a page, 2^63 less one of them. */
const NO_LIMIT = 2 ** 60;
const V2 = { usage: 'memory.current', limit: 'memory.max', cache: ['active_file', 'inactive_file', 'slab_reclaimable'] };
const V1 = { usage: 'memory.usage_in_bytes', limit: 'memory.limit_in_bytes', cache: ['total_active_file', 'total_inactive_file'] };

/** Look now: { rss, used, limit, origin }, sizes in bytes, null where they are not known. Never throws. */
function look(ownLimit, { proc = '/proc', cgroups = '/sys/fs/cgroup' } = {}) {
  const rss = process.memoryUsage.rss();
  let found = null;
  try {
    found = cgroup(proc, cgroups);
  } catch {
    // No cgroups here, or none that can be read.
  }
  if (found === null) return { rss, used: rss, limit: ownLimit, origin: 'process' };
  const limit = ownLimit === null ? found.limit : Math.min(found.limit, ownLimit);
  return { rss, used: found.used, limit, origin: 'cgroup' };
}

/** Used and limit of the nearest cgroup that has a limit; null where none of ours has one. */
function cgroup(proc, cgroups) {
  let base = cgroups;
  let where = '';
  let version = V2;
  for (const line of read(path.join(proc, 'self/cgroup')).trim().split('\n')) {
    const [, controllers, ...rest] = line.split(':');
    if (controllers.split(',').includes('memory')) {
      [base, where, version] = [path.join(cgroups, 'memory'), rest.join(':'), V1];
      break;
    }
    if (!controllers) where = rest.join(':');
  }
  let place = path.join(base, where);
  // A container may see its own cgroup as the root, and the host's path for it.
  if (where.split('/').includes('..') || !fs.existsSync(place)) place = base;
  for (;;) {
    const limit = limitOf(path.join(place, version.limit));
    if (limit !== null) return { used: usedOf(place, version), limit };
    if (path.relative(base, place) === '') return null;
    place = path.dirname(place);
  }
}

function limitOf(file) {
  let text;
  try {
    text = read(file).trim();
  } catch (error) {
    if (error.code === 'ENOENT') return null; // a root cgroup, or one without the controller
    throw error;
  }
  return text !== 'max' && Number(text) < NO_LIMIT ? Number(text) : null;
}

function usedOf(place, version) {
  let used = Number(read(path.join(place, version.usage)));
  for (const line of read(path.join(place, 'memory.stat')).split('\n')) {
    const [name, value] = line.split(' ');
    if (version.cache.includes(name)) used -= Number(value);
  }
  return Math.max(used, 0);
}

function read(file) {
  return fs.readFileSync(file, 'latin1');
}

module.exports = { look };
