// A Node service that remembers every answer, in objects on V8's heap: it ends with "Reached heap limit".
//
// GET /ping → pong; GET /work keeps 100 kB more; GET /count → how many answers are kept. With `hook` as its argument it tells
// oomguard how to forget them.
'use strict';
const http = require('http');

let kept = new Map();
let served = 0;

if (process.argv[2]) {
  const guard = require(process.argv[2]).start();
  guard.cache('answers', { clear: () => { kept = new Map(); }, entries: () => kept.size });
}

const server = http.createServer((request, response) => {
  if (request.url === '/work') {
    served++;
    kept.set(served, Array.from({ length: 1000 }, (_, index) => ({ served, index, text: `answer ${served}.${index}` })));
  }
  response.end(request.url === '/count' ? `${kept.size} of ${served}\n` : 'pong\n');
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`${JSON.stringify({ port: server.address().port })}\n`));
