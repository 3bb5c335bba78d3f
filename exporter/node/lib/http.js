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
const FINISH = 'http.server.response.finish';
/** What ends a stream because of its client, seen from a socket. */
const GONE = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ERR_STREAM_PREMATURE_CLOSE']);
const EVENT_STREAM = /^\s*text\/event-stream\b/i;
/** A request that is in flight, and not measured. */
const COUNTED = Object.freeze({});

/** The responses of one connection that are not finished; one listener for all that it will ever carry. */
class Connection {
  constructor(requests, socket) {
    this.requests = requests;
    this.open = 0;
    // One more than before, in case the application has as many as Node finds right.
    const most = socket.getMaxListeners();
    if (most > 0) socket.setMaxListeners(most + 1);
    socket.on('close', () => {
      for (; this.open > 0; this.open--) requests.end(null);
    });
  }
}

class Http {
  constructor(requests, streams, shedding) {
    this.requests = requests;
    this.streams = streams;
    this.shedding = shedding;
    this.started = ({ response, socket }) => this.start(response, socket);
    this.finished = ({ response, socket }) => this.finish(response, socket);
    this.restore = [];
    diagnostics.subscribe(START, this.started);
    diagnostics.subscribe(FINISH, this.finished);
  }

  stop() {
    diagnostics.unsubscribe(START, this.started);
    diagnostics.unsubscribe(FINISH, this.finished);
    for (const undo of this.restore.splice(0)) undo();
    this.noticing = this.refusing = false;
  }

  // What a subscriber throws, Node reports as an uncaught exception: none of these may.

  start(response, socket) {
    try {
      if (!this.noticing) this.notice();
      let connection = socket[STATE];
      if (connection === undefined || connection.requests !== this.requests) {
        connection = socket[STATE] = new Connection(this.requests, socket);
      }
      connection.open++;
      response[STATE] = this.requests.begin() || COUNTED;
    } catch {
      // The request is the application's, and goes on.
    }
  }

  finish(response, socket) {
    try {
      const state = response[STATE];
      if (state === undefined) return;
      response[STATE] = undefined;
      if (socket && socket[STATE]) socket[STATE].open--;
      this.requests.end(state);
    } catch {
      // As above.
    }
  }

  /** Look at the head of each response before it is written. */
  notice() {
    this.noticing = true;
    const { prototype } = require('http').ServerResponse;
    const hook = this;
    this.replace(prototype, 'writeHead', (original) => function writeHead(status, reason, headers) {
      let refused = false;
      try {
        if (this[STATE] !== undefined && isEventStream(this, typeof reason === 'string' ? headers : reason)) {
          refused = hook.opened(this);
        }
      } catch {
        // As above.
      }
      return refused ? refuse(this, original) : original.apply(this, arguments);
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
  opened(response) {
    const { socket } = response;
    response[STATE] = undefined;
    this.requests.leave();
    if (socket && socket[STATE]) socket[STATE].open--;
    if (this.streams.full()) {
      this.streams.reject();
      return true;
    }
    const stream = this.streams.add('sse', () => evict(response));
    const { write } = response;
    response.write = function touching(...words) {
      stream.touch();
      return write.apply(this, words);
    };
    const most = response.getMaxListeners();
    if (most > 0) response.setMaxListeners(most + 1); // as for connections
    response.on('close', () => stream.close(reasonOf(response)));
    if (socket && socket.setKeepAlive) socket.setKeepAlive(true, KEEP_ALIVE);
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

function reasonOf(response) {
  if (response.writableEnded) return 'server';
  return response.errored && !GONE.has(response.errored.code) ? 'error' : 'client';
}

/** Content type as the headers given to writeHead have it, else as it was set before. */
function isEventStream(response, headers) {
  let type = response.getHeader('content-type');
  if (Array.isArray(headers)) {
    const flat = Array.isArray(headers[0]) ? headers.flat() : headers;
    for (let at = 0; at + 1 < flat.length; at += 2) if (String(flat[at]).toLowerCase() === 'content-type') type = flat[at + 1];
  } else if (headers) {
    for (const name of Object.keys(headers)) if (name.toLowerCase() === 'content-type') type = headers[name];
  }
  return typeof type === 'string' && EVENT_STREAM.test(type) && response.req.method !== 'HEAD';
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
