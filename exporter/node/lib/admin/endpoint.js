'use strict';
// GET /admin/memory and POST /admin/cleanup in the application itself; docs/admin.md says what they answer.

const { threshold } = require('../health.js');
const { text } = require('../answer.js');
const { within } = require('../time.js');
const { RefusedError, parse } = require('./order.js');
const { Runs } = require('./run.js');
const { judge } = require('./token.js');

const METHODS = { '/admin/memory': 'GET', '/admin/cleanup': 'POST' };
/** Bytes. Alertmanager's payload of 1000 alerts has about 600 kB. */
const MAX_BODY = 2 ** 20;
/** Seconds until a caller is told that the run goes on without it. */
const WAIT = 10;

class Endpoint {
  /** `take` takes a step; `read` takes a reading; `look` tells the level; `acts` whether alerts are followed. */
  constructor(environ, { take, read, look, acts }) {
    this.environ = environ;
    this.read = read;
    this.look = look;
    this.acts = acts;
    this.runs = new Runs(take, look, () => threshold(environ.OOMGUARD_GOAL, { ratio: 0.7 }));
  }

  /** Answer the request if its path is one of the two; whether it was. */
  serve(request, response) {
    const path = (request.url || '').split('?', 1)[0];
    if (!Object.hasOwn(METHODS, path)) return false;
    this.answer(request, path).then(
      (reply) => this.send(response, request, reply),
      (error) => this.send(response, request, refusal(500, text(error))),
    ).catch(() => undefined);
    return true;
  }

  async answer(request, path) {
    if (request.method !== METHODS[path]) {
      return refusal(405, `${request.method} ${path}: send ${METHODS[path]}`, { Allow: METHODS[path] });
    }
    const access = judge(request.headers.authorization, this.environ);
    if (access === 'missing') {
      const hint = "no token; send Authorization: Bearer with OOMGUARD_TOKEN or the runtime directory's token";
      return refusal(401, hint, { 'WWW-Authenticate': 'Bearer' });
    }
    if (access === 'wrong') return refusal(403, 'wrong token');
    if (path === '/admin/memory') return { status: 200, content: this.memory() };
    const body = await bodyOf(request);
    if (body === null) return refusal(413, `the body is larger than ${MAX_BODY} bytes`);
    try {
      const order = parse(body, this.environ.OOMGUARD_TARGET || '');
      const content = await within(this.runs.order(order, this.acts()), WAIT, 'late').catch((error) => {
        if (error.message === 'late') return { outcome: 'under_way', run: this.runs.underWay, pid: process.pid };
        throw error;
      });
      return { status: ['joined', 'under_way'].includes(content.outcome) ? 202 : 200, content };
    } catch (error) {
      if (error instanceof RefusedError) return refusal(error.status, error.message);
      throw error;
    }
  }

  memory() {
    const { rss, used, origin, limit } = this.look();
    return {
      pid: process.pid,
      target: this.environ.OOMGUARD_TARGET || null,
      rss,
      used,
      used_of: origin,
      limit,
      run: this.runs.underWay,
      reading_age: 0,
      ...this.read(),
    };
  }

  send(response, request, { status, content, headers }) {
    const body = JSON.stringify(content) + '\n';
    response.writeHead(status, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(body),
      'Cache-Control': 'no-store',
      ...headers,
    });
    response.end(body);
    request.resume(); // what nobody reads would hold the connection
  }
}

function refusal(status, error, headers) {
  return { status, content: { error }, headers };
}

/** The body as text; null where it is too large. One that a middleware in front has parsed is taken as it is. */
async function bodyOf(request) {
  if (request.body !== undefined && request.readableEnded) {
    const { body } = request;
    return typeof body === 'string' || Buffer.isBuffer(body) ? String(body) : JSON.stringify(body);
  }
  if (Number(request.headers['content-length']) > MAX_BODY) return null;
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

module.exports = { Endpoint };
