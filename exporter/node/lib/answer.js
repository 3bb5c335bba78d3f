'use strict';

/** The answer to a step, as docs/hook-protocol.md has it; `status` is done, skipped, unsupported or failed. */
function answer(status, reason = '', { seconds = 0, stall = 0, details = {} } = {}) {
  return { status, reason, seconds, stall, freed_in_allocator: null, details };
}

/** A short text for an error, which may be anything that was thrown. */
function text(error) {
  try {
    return (error instanceof Error ? `${error.name}: ${error.message}` : String(error)).slice(0, 200);
  } catch {
    return 'an error that cannot be shown';
  }
}

module.exports = { answer, text };
