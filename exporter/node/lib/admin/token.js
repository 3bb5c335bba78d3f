'use strict';
// The Bearer token of the application's endpoints: OOMGUARD_TOKEN, else the file that `oomguard run` made.

const crypto = require('crypto');
const fs = require('fs');
const path = require('path');

const LONGEST = 4096;

/** Judge an Authorization header: 'granted', 'missing' or 'wrong'. Where no token is set, every token is wrong. */
function judge(authorization, environ) {
  if (!authorization) return 'missing';
  const [scheme, ...rest] = authorization.split(' ');
  if (scheme.toLowerCase() !== 'bearer') return 'wrong';
  const expected = environ.OOMGUARD_TOKEN || ofFile(environ.OOMGUARD_RUNTIME_DIR || '');
  return expected && same(rest.join(' ').trim(), expected) ? 'granted' : 'wrong';
}

function same(given, expected) {
  const digest = (text) => crypto.createHash('sha256').update(text).digest();
  return crypto.timingSafeEqual(digest(given), digest(expected));
}

/** Content of the file `token`; empty where there is none that can be read and trusted. */
function ofFile(runtimeDir) {
  if (!runtimeDir || runtimeDir[0] === '@') return '';
  let number;
  try {
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants; // a pipe would block the application
    number = fs.openSync(path.join(runtimeDir, 'token'), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (![0, process.geteuid(), fs.statSync(runtimeDir).uid].includes(fs.fstatSync(number).uid)) return '';
    const content = Buffer.alloc(LONGEST);
    return content.toString('utf8', 0, fs.readSync(number, content, 0, LONGEST, null)).trim();
  } catch {
    return '';
  } finally {
    if (number !== undefined) fs.closeSync(number);
  }
}

module.exports = { judge };
