'use strict';
// Who this process is, as the protocol's first line says it.

const fs = require('fs');
const { VERSION } = require('./protocol.js');

/** As package.json has it: reading that at the start would cost as much as everything else. */
const HOOK_VERSION = '0.1.0';

function hello(target) {
  return {
    hello: VERSION,
    pid: process.pid,
    start_ticks: startTicks(),
    pidns: pidNamespace(),
    target,
    runtime: 'node',
    runtime_version: process.versions.node,
    hook_version: HOOK_VERSION,
    forked: false, // Node's fork is a spawn: nothing is shared
  };
}

/** Field 22 of /proc/self/stat (proc_pid_stat(5)); comm may hold spaces and parentheses. */
function startTicks() {
  try {
    const stat = fs.readFileSync('/proc/self/stat', 'latin1');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  } catch {
    return null;
  }
}

function pidNamespace() {
  try {
    return fs.statSync('/proc/self/ns/pid').ino;
  } catch {
    return null;
  }
}

module.exports = { hello };
