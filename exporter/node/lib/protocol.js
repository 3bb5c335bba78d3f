'use strict';
// The lines of the hook protocol, as docs/hook-protocol.md has them; no input or output here.

const VERSION = 1;
/** Bytes of a line with its newline, either way. */
const MAX_LINE = 65536;

/** The other side did not keep to the protocol; the connection ends. */
class MalformedError extends Error {}

/** The sidecar does not speak this version; the hook does not try again. */
class RefusedError extends Error {}

/**
 * Read a question of the sidecar's: an object with an `id` (integer or text) and an `ask` (text).
 *
 * An `error` instead of a question refuses the hook, but only as the `first` line of a connection.
 */
function parse(line, first) {
  let question;
  try {
    question = JSON.parse(line);
  } catch {
    throw new MalformedError('a line that is not JSON');
  }
  if (question === null || typeof question !== 'object' || Array.isArray(question)) {
    throw new MalformedError('a line that is not an object');
  }
  if (!('ask' in question) && first && typeof question.error === 'string') {
    throw new RefusedError(question.error.slice(0, 200));
  }
  const { id, ask } = question;
  if (!(Number.isInteger(id) || typeof id === 'string') || typeof ask !== 'string') {
    throw new MalformedError('a question without id or ask');
  }
  return question;
}

/** One line, newline included; what is too long loses entries of its lists, or details, until it fits. */
function encode(message) {
  let line = JSON.stringify(message) + '\n';
  if (message.reading) {
    const reading = { ...message.reading };
    while (Buffer.byteLength(line) > MAX_LINE) {
      const name = longestList(reading);
      if (name === undefined) break;
      const total = message.reading[name].length;
      reading[name] = reading[name].slice(0, reading[name].length >> 1);
      reading[`${name}_omitted`] = total - reading[name].length;
      line = JSON.stringify({ ...message, reading }) + '\n';
    }
  } else if (message.step && Buffer.byteLength(line) > MAX_LINE) {
    line = JSON.stringify({ ...message, step: { ...message.step, details: { omitted: 'longer than a line may be' } } });
    line += '\n';
  }
  return line;
}

function longestList(reading) {
  let longest;
  for (const [name, value] of Object.entries(reading)) {
    if (Array.isArray(value) && value.length > (longest === undefined ? 0 : reading[longest].length)) longest = name;
  }
  return longest;
}

module.exports = { VERSION, MAX_LINE, MalformedError, RefusedError, parse, encode };
