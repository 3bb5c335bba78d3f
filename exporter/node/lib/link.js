'use strict';
// The connection to the sidecar: connects, answers question after question, connects again.
//
// Nothing here keeps the process alive, and nothing throws into it.

const { connect } = require('./connect.js');
const { MAX_LINE, MalformedError, RefusedError, encode, parse } = require('./protocol.js');
const { cancel, later } = require('./time.js');

const FIRST_BACK_OFF = 0.1;
const LONGEST_BACK_OFF = 2;
/** Seconds. A program that is gone by then leaves no trace at the sidecar. */
const FIRST = 0.05;
/** Seconds that the sidecar has to take an answer. */
const SEND = 1;
const NEWLINE = 10;

class Link {
  /** `hello` is the first line; `answer` takes a question and returns a promise of the answer, which never rejects. */
  constructor(address, hello, answer) {
    this.address = address;
    this.hello = hello;
    this.answer = answer;
    /** `connecting`, `connected`, `refused` or `stopped`; for people. */
    this.state = 'connecting';
    this.reason = '';
    this.backOff = FIRST_BACK_OFF;
    this.socket = null;
    this.timer = later(FIRST, () => this.connect());
  }

  stop() {
    this.end('stopped', '');
  }

  async connect() {
    try {
      const socket = await connect(this.address);
      if (this.state !== 'connecting') return void socket.destroy();
      this.socket = socket;
    } catch (error) {
      return this.again(error);
    }
    this.received = Buffer.alloc(0);
    this.asked = 0;
    this.busy = false;
    const socket = this.socket;
    let trouble;
    socket.on('error', (error) => { trouble = error; });
    socket.on('close', () => {
      if (this.socket === socket) this.again(trouble || new Error('the sidecar closed the connection'));
    });
    socket.on('connect', () => {
      this.state = 'connected';
      this.reason = '';
      this.send(socket, this.hello());
    });
    socket.on('data', (data) => {
      if (this.socket !== socket) return;
      this.received = this.received.length ? Buffer.concat([this.received, data]) : data;
      if (this.busy && this.received.length > MAX_LINE) socket.pause();
      this.serve(socket);
    });
  }

  /** Answer what has come, one question after the other. */
  async serve(socket) {
    if (this.busy) return;
    this.busy = true;
    try {
      for (;;) {
        const line = this.line();
        if (line === undefined) break;
        const question = parse(line, this.asked++ === 0);
        const answer = await this.answer(question);
        if (this.socket !== socket) return;
        this.send(socket, { id: question.id, ...answer });
        this.backOff = FIRST_BACK_OFF;
      }
      if (socket.isPaused()) socket.resume();
    } catch (error) {
      if (this.socket !== socket) return;
      if (error instanceof RefusedError) this.end('refused', error.message);
      else this.again(error);
    } finally {
      if (this.socket === socket) this.busy = false;
    }
  }

  line() {
    const end = this.received.indexOf(NEWLINE);
    if (end >= MAX_LINE || (end < 0 && this.received.length >= MAX_LINE)) {
      throw new MalformedError(`a line longer than ${MAX_LINE} bytes`);
    }
    if (end < 0) return undefined;
    const line = this.received.toString('utf8', 0, end);
    this.received = this.received.subarray(end + 1);
    return line;
  }

  send(socket, message) {
    socket.write(encode(message));
    if (socket.writableLength === 0 || this.sending) return;
    this.sending = later(SEND, () => {
      this.sending = null;
      if (this.socket === socket && socket.writableLength > 0) this.again(new Error('the sidecar takes no answer'));
    });
  }

  again(error) {
    if (this.state === 'stopped' || this.state === 'refused') return;
    this.end('connecting', String(error && error.message).slice(0, 200));
    this.timer = later(this.backOff, () => this.connect());
    this.backOff = Math.min(2 * this.backOff, LONGEST_BACK_OFF);
  }

  end(state, reason) {
    this.state = state;
    this.reason = reason;
    cancel(this.timer);
    cancel(this.sending);
    this.sending = null;
    const socket = this.socket;
    this.socket = null;
    if (socket) socket.destroy();
  }
}

module.exports = { Link };
