'use strict';
// Requests and event streams of every http and https server of this process, noticed by themselves.
//
// Node publishes each request before its handler runs (diagnostics_channel, 'http.server.request.start'). From the
// first one on, ServerResponse.prototype.writeHead tells when a response is an event stream. Before that, http is not
// even loaded for the hook's sake. HTTP/2 has neither, and is not seen.

const diagnostics = require('diagnostics_channel');

const STATE = Symbol('oomguard');
const RETRY_AFTER = '30';
/** Milliseconds of silence after which the kernel asks whether a stream's client is still there. */
const KEEP_ALIVE = 30000;
const START = 'http.server.request.start';
/** What ends a stream because of its client, seen from a socket. */
const GONE = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ERR_STREAM_PREMATURE_CLOSE']);

class Http {
  constructor(requests, streams, shedding) {
    this.requests = requests;
    this.streams = streams;
    this.shedding = shedding;
    this.started = (message) => this.start(message.response);
    this.restore = [];
    diagnostics.subscribe(START, this.started);
  }

  stop() {
    diagnostics.unsubscribe(START, this.started);
    for (const undo of this.restore.splice(0)) undo();
    this.noticing = this.refusing = false;
  }

  start(response) {
    try {
      if (!this.noticing) this.notice();
      response[STATE] = { http: this, mark: this.requests.begin(), stream: null, counted: true };
      const most = response.getMaxListeners();
      if (most > 0) response.setMaxListeners(most + 1); // one of them is ours
      response.on('close', onClose);
    } catch {
      // The request is the application's, and goes on.
    }
  }

  /** Look at the head of each response before it is written. */
  notice() {
    this.noticing = true;
    const { prototype } = require('http').ServerResponse;
    this.replace(prototype, 'writeHead', (original) => function writeHead(...words) {
      let refused = false;
      try {
        const state = this[STATE];
        if (state && state.counted && isEventStream(this, words)) refused = state.http.opened(this, state);
      } catch {
        // As above.
      }
      return refused ? refuse(this, original) : original.apply(this, words);
    });
  }

  /** Answer requests with 503 before the application's handler is called, while `shedding` says so. */
  refuseFirst() {
    if (this.refusing) return;
    this.refusing = true;
    const { shedding } = this;
    for (const { Server } of [require('http'), require('https')]) {
      this.replace(Server.prototype, 'emit', (original) => function emit(event, request, response, ...rest) {
        if (event === 'request' || event === 'checkContinue') {
          try {
            if (shedding.refuse(request, response)) return true;
          } catch {
            // As above.
          }
        }
        return original.call(this, event, request, response, ...rest);
      });
    }
  }

  /** An event stream begins: whether it is refused, because there are too many. */
  opened(response, state) {
    state.counted = false;
    this.requests.leave();
    if (this.streams.full()) {
      this.streams.reject();
      return true;
    }
    const stream = this.streams.add('sse', () => evict(response));
    state.stream = stream;
    const { write } = response;
    response.write = function touching(...words) {
      stream.touch();
      return write.apply(this, words);
    };
    if (response.socket && response.socket.setKeepAlive) response.socket.setKeepAlive(true, KEEP_ALIVE);
    return false;
  }

  replace(object, name, make) {
    const own = Object.getOwnPropertyDescriptor(object, name);
    const ours = make(object[name]);
    Object.defineProperty(object, name, { value: ours, writable: true, configurable: true, enumerable: own ? own.enumerable : false });
    this.restore.push(() => {
      if (object[name] !== ours) return; // somebody has wrapped it since: it stays, and does nothing more
      if (own) Object.defineProperty(object, name, own);
      else delete object[name];
    });
  }
}

/** The response is over, one way or the other. One function for all of them: a closure each would cost memory. */
function onClose() {
  const state = this[STATE];
  this[STATE] = undefined;
  if (!state) return;
  if (state.counted) state.http.requests.end(state.mark);
  if (state.stream) state.stream.close(reasonOf(this));
}

function reasonOf(response) {
  if (response.writableEnded) return 'server';
  return response.errored && !GONE.has(response.errored.code) ? 'error' : 'client';
}

/** Content type as the arguments of writeHead have it, else as it was set before. */
function isEventStream(response, words) {
  if (response.req && response.req.method === 'HEAD') return false;
  const headers = typeof words[1] === 'string' ? words[2] : words[1];
  let type = response.getHeader('content-type');
  if (Array.isArray(headers)) {
    const pairs = Array.isArray(headers[0]) ? headers : headers.map((name, index) => [name, headers[index + 1]]).filter((_, index) => index % 2 === 0);
    for (const [name, value] of pairs) if (String(name).toLowerCase() === 'content-type') type = value;
  } else if (headers) {
    for (const name of Object.keys(headers)) if (name.toLowerCase() === 'content-type') type = headers[name];
  }
  return /^\s*text\/event-stream\b/i.test(String(type));
}

/** Answer 503 instead; to the handler it looks as if the client had gone at once. */
function refuse(response, writeHead) {
  for (const name of response.getHeaderNames()) if (/^(?:content-|transfer-|cache-control$)/.test(name)) response.removeHeader(name);
  const { end } = response;
  const result = writeHead.call(response, 503, { 'Retry-After': RETRY_AFTER, 'Content-Length': '0' });
  // The call may come from within a write, whose text would follow as the body: this response has none.
  response._hasBody = false;
  silence(response);
  process.nextTick(() => end.call(response));
  return result;
}

/** End a stream as its server would have: the client sees a whole response. */
function evict(response) {
  response.end();
  silence(response);
}

/** What the handler still writes is dropped: Node would emit an error for it, which nobody listens for. */
function silence(response) {
  response.write = (...words) => ignore(words, true);
  response.end = (...words) => ignore(words, response);
}

function ignore(words, result) {
  const callback = words[words.length - 1];
  if (typeof callback === 'function') process.nextTick(callback);
  return result;
}

module.exports = { Http };
