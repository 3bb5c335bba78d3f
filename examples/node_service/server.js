'use strict';
// A retrieval service as it is often written: it works, and it remembers everything for ever.
//
// POST /search takes {"query": "…", "documents": ["…", …]} and answers {"best": index, "score": cosine}. Every document's
// terms are kept, so that a later query for it need not count them again. Nothing ever leaves that index.
// GET /events is a stream of server-sent events that never ends by itself, GET /healthz says that the service is up.

const http = require('http');

/** How often each term (a word, or three letters in a row) occurs in each document that was ever sent. */
let index = new Map();

// All that oomguard has to know; without it the service runs as it always did.
try {
  const guard = require('oomguard-hook').start();
  guard.cache('index', { clear: () => { index = new Map(); }, entries: () => index.size });
} catch (error) {
  if (error.code !== 'MODULE_NOT_FOUND') throw error;
}

function count(text) {
  const counts = new Map();
  const add = (term) => counts.set(term, { term, count: (counts.get(term)?.count ?? 0) + 1 });
  for (const word of text.toLowerCase().split(/\W+/).filter(Boolean)) add(word);
  for (let at = 0; at + 3 <= text.length; at++) add(text.slice(at, at + 3));
  return counts;
}

function terms(text) {
  let counts = index.get(text);
  if (counts === undefined) {
    counts = count(text);
    index.set(text, counts);
  }
  return counts;
}

function cosine(one, other) {
  let dot = 0;
  for (const { term, count: times } of one.values()) dot += times * (other.get(term)?.count ?? 0);
  const length = (counts) => Math.sqrt([...counts.values()].reduce((sum, { count: times }) => sum + times * times, 0));
  return dot / (length(one) * length(other) || 1);
}

function search({ query, documents }) {
  const wanted = count(query);
  const scores = documents.map((text) => cosine(wanted, terms(text)));
  const score = Math.max(...scores);
  return { best: scores.indexOf(score), score };
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString());
}

function events(response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  const timer = setInterval(() => response.write(`event: index\ndata: {"entries": ${index.size}}\n\n`), 1000);
  response.on('close', () => clearInterval(timer));
}

const server = http.createServer(async (request, response) => {
  try {
    if (request.url === '/events') return events(response);
    if (request.url === '/healthz') return response.end('ok\n');
    if (request.method !== 'POST' || request.url !== '/search') return response.writeHead(404).end();
    const answer = JSON.stringify(search(await body(request)));
    return response.writeHead(200, { 'Content-Type': 'application/json' }).end(answer);
  } catch (error) {
    return response.writeHead(400).end(`${error.message}\n`);
  }
});

server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
