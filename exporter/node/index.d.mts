export * from './index.js';
import hook = require('./index.js');
export default hook;
