'use strict';
// Finding the sidecar's socket, and whether to trust who listens there.

const fs = require('fs');
const net = require('net');
const path = require('path');

/**
 * Make a connection to the sidecar of `runtimeDir`; it keeps the process not alive.
 *
 * Node can't ask who listens (SO_PEERCRED), so the owner of the socket's file decides: root, this process's effective
 * user, or the owner of the directory that the environment named. An abstract socket has no file: whoever holds its
 * inode is looked for. Rejects with an Error that says why not.
 */
async function connect(runtimeDir) {
  const address = runtimeDir[0] === '@' ? await abstract(runtimeDir) : inDirectory(runtimeDir);
  const socket = net.connect({ path: address });
  socket.unref();
  return socket;
}

function inDirectory(runtimeDir) {
  const file = path.join(runtimeDir, 'sidecar.sock');
  const owner = fs.statSync(file).uid;
  if (![0, process.geteuid(), fs.statSync(runtimeDir).uid].includes(owner)) {
    throw new Error(`${file} belongs to uid ${owner}, not to root or this user`);
  }
  return file;
}

async function abstract(name) {
  // libuv before 1.48 pads the name with NUL bytes to its full length, which is another name.
  const [major, minor] = process.versions.uv.split('.').map(Number);
  if (major === 1 && minor < 48) {
    throw new Error(`Node ${process.versions.node} can't connect to abstract sockets (${name}): update it to 22 or later`);
  }
  const inode = await inodeOf(name);
  if (inode === undefined) throw new Error(`nobody listens at ${name}`);
  if (!(await heldByTrusted(`socket:[${inode}]`))) throw new Error(`${name} is held by no process of this user's`);
  return '\0' + name.slice(1);
}

/** Inode of the listening socket (proc_net(5): flags 00010000 is a listener's). */
async function inodeOf(name) {
  for (const line of (await fs.promises.readFile('/proc/net/unix', 'utf8')).split('\n')) {
    const [, , , flags, , , inode, ...words] = line.trim().split(/\s+/);
    if (flags === '00010000' && words.join(' ') === name) return inode;
  }
  return undefined;
}

/** Whether a process of root's or of this user's has the socket open; descriptors of others can't be read. */
async function heldByTrusted(link) {
  const uid = process.geteuid();
  for (const pid of await fs.promises.readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const owner = (await fs.promises.stat(`/proc/${pid}`)).uid;
      if (owner !== 0 && owner !== uid) continue;
      for (const number of await fs.promises.readdir(`/proc/${pid}/fd`)) {
        if ((await fs.promises.readlink(`/proc/${pid}/fd/${number}`)) === link) return true;
      }
    } catch {
      // It has ended, or may not be looked at.
    }
  }
  return false;
}

module.exports = { connect };
